"""`shortproc-exporter top`: like `htop`, for processes that are too short-lived for it. `docs/top.md` is the manual.

May import: `library` and what it is built on.
"""
