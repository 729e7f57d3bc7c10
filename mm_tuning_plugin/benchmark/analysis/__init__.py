"""Results and their statistics."""
