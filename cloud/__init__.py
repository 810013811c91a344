"""Everything that runs centrally: API, consumers, ingest, metrics, certificates, the `fleet` command."""

from importlib import metadata

VERSION = metadata.version("fleetline")
