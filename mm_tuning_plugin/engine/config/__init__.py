"""Read the user's config and derive the config of stage one."""
