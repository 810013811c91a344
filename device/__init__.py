"""The agent that runs on a device: keeps its services as desired and tells the truth about them."""

from importlib import metadata

VERSION = metadata.version("fleetline")
