"""The HTTP server, the page, the API and the stream.

Imports `metrics` and `supervision`, and what is below them; never a source by name.
"""
