"""A whole local stack - broker, cloud, metrics, devices - as child processes in one directory."""
