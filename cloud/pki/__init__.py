"""The fleet's own certificate authority and what it agrees to sign."""
