"""`/metrics`: the catalogue declares each family once, the exposition fills them from a snapshot.

Imports `supervision` and `handlers` (their status), and what is below them.
"""
