"""Checks before the first training step."""
