"""Everything that needs privileges: loads BPF programs and opens sockets, in a child, for the serving process.

Imports `config`, `process`, `kernel` and `model`; never a source.
"""
