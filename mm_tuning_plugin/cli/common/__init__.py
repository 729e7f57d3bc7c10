"""What several commands share, and the parts of commands that are long."""
