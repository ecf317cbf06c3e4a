"""The two modes that scan `/proc`: `scan` and `fast_scan`.

Imports what `exporter.sources` may, and no other source.
"""
