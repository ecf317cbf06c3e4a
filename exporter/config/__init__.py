"""All options, the checks of their values, the reader of YAML files, and error messages.

Imports `model`.
"""
