"""Checkpoint formats: bytes become named, lazily read tensors. See `registry` for the list."""
