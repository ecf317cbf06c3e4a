"""Reads process events and statistics from netlink.

Imports what `exporter.sources` may, and no other source.
"""
