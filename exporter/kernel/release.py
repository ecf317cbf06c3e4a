"""The version of the running kernel."""

from __future__ import annotations

import os


def version() -> tuple[int, ...]:
    """Return the first two numbers of the kernel release, e.g. (6, 18). Suffixes of distributions are ignored."""
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in os.uname().release.split(".")[:2])
