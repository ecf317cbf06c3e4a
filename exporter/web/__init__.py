"""The HTTP server, the page, the API and the stream.

Imports `metrics` and `supervision`, and the packages below them; never a single source.
"""
