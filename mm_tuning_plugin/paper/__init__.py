"""The paper's own systems."""
