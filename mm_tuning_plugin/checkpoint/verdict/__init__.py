"""Decide whether a file is accepted, and explain why."""
