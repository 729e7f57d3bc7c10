"""Comparing arms fairly: the same data, seeds and start, and the same total compute."""
