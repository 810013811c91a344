"""Where samples are kept and asked for: one protocol, served by SQL or by InfluxDB."""
