"""Finds the owner of a process from the path of its cgroup, the names of containers, and users by number.

Imports `process`, `kernel` and `model`.
"""
