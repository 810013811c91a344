"""Samples: taken, spooled on disk, sent, and forgotten only when the cloud has stored them."""
