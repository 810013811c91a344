"""The contract between devices, cloud and people: messages, topics, errors. No I/O."""

SCHEMA_VERSION = 1
