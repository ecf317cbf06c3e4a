"""Selects the mode, owns the active source and the ledger, and makes snapshots for metrics and pages.

Imports `sources`, `loaders`, `records`, `config` and what is below them.
"""
