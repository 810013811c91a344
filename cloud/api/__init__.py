"""The REST door: `/api/v1`, one envelope for every answer."""
