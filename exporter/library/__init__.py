"""The Python API, for programs, `snoop` and `top`: records of this host, of another exporter, or that a sink has written.

`docs/library.md` is the manual. May import: everything below it: supervision, records, and so on; never commands or pages.
"""
