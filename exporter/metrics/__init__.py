"""`/metrics`: the catalogue declares each family once, the exposition fills them from a snapshot, and encoders write them.

Imports `supervision` and `handlers` (their status), and what is below them.
"""
