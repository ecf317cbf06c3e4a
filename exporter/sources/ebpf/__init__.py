"""Reads the counts and records of the BPF programs.

Imports what `exporter.sources` may, and no other source.
"""
