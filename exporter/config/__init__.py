"""All options, the checks of their values, the reader of YAML files, and the words for what is wrong with one.

Imports `model`.
"""
