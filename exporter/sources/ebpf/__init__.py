"""Reads what the BPF programs counted, and the records that they wrote.

Imports what `exporter.sources` may, and no other source.
"""
