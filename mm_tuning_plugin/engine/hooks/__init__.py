"""Hooks of stage one, one a file."""
