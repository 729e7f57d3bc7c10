"""Run the steps of a plan."""
