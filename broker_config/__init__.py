"""Mosquitto's configuration for a fleet: `settings` says what is wanted, `render` turns it into files."""
