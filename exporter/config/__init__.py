"""Every option, the checks of its value, and the strict YAML reader.

Imports `model`.
"""
