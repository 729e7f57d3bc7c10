"""Pictures of a running stage."""
