"""Stop and resume a run to the bit."""
