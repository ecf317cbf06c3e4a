"""The sources that observe processes, one package for each family of modes, behind the interface in `base`.

Imports `records`, `kernel` and `model`; never a loader.
"""
