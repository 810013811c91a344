"""From a telemetry message on the broker to samples in the metrics database."""
