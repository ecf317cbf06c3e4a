"""Processes as the kernel reports them over netlink.

Imports what `exporter.sources` may, and no other source.
"""
