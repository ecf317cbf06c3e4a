"""Which kernel runs here."""

from __future__ import annotations

import os


def version() -> tuple[int, ...]:
    """The first two numbers of its release, such as (6, 18), whatever a distribution puts behind them."""
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in os.uname().release.split(".")[:2])
