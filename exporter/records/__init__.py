"""Records of single short processes: how each field is written, and the hub that hands them out.

Imports `model`.
"""
