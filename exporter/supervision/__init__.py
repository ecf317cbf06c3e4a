"""Chooses the mode, owns the source that runs and the ledger, and makes the snapshot that is shown.

Imports `sources`, `loaders`, `records`, `config` and what is below them.
"""
