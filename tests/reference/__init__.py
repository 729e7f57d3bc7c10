"""The algorithms once more, in plain loops, written from the facts: what the fast ones must equal.

Nothing here imports the package. Slow on purpose only in that nothing is vectorised.
"""
