"""What any daemon has: logs, privileges, sd_notify, its version.

Imports `kernel` and `model`.
"""
