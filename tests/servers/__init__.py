"""Real servers for tests, each started on free loopback ports with its own directory."""
