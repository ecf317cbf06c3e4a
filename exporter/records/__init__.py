"""Records of single short processes: their fields, their JSON, filters, and the hub that passes them to consumers.

Imports `model`.
"""
