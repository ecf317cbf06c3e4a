"""Scans of `/proc`, the plain one and the fast one.

Imports what `exporter.sources` may, and no other source.
"""
