"""`/metrics`: every family declared once, and how a snapshot becomes them.

Imports `supervision` and `handlers` (their status), and what is below them.
"""
