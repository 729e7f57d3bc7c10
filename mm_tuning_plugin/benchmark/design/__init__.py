"""What a plan compares."""
