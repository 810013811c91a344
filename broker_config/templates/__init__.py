"""The texts `broker_config.render` fills in."""
