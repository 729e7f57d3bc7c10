"""When a finished tuning is used again."""
