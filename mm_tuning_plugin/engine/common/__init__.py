"""What several rooms of the engine use."""
