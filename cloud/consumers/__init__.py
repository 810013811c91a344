"""What becomes of each kind of message from devices: one module a kind, each with one `record`."""
