"""The three standard descriptors."""

from __future__ import annotations

import os
import sys


def open_standard() -> None:
    """Open /dev/null in place of each standard descriptor that the parent closed.

    Otherwise the next file or socket would get its number, and this process and its children would write their log into it.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(fd, True)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
