"""The commands. One module each; `tools/*.py` are three-line shims over them."""
