"""What one step does in its process."""
