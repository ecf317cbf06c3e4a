"""Parts of any daemon: logs, privileges, signals, sd_notify, version.

Imports `kernel` and `model`.
"""
