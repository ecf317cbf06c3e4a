"""Everything that needs privileges: loads BPF programs in a child, and opens sockets, for the serving process.

Imports `config`, `process`, `kernel` and `model`; never a source.
"""
