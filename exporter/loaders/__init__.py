"""What needs privileges: loads BPF programs and opens sockets, in a child, for the process that serves.

Imports `config`, `process`, `kernel` and `model`; never a source.
"""
