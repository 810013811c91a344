"""The container engine: what the agent asks of it, its Docker door, and a fake that behaves."""
