"""Keeps the memory of the process small (mallopt(3), malloc_trim(3))."""

from __future__ import annotations

import ctypes
import gc

_M_ARENA_MAX = -8  # malloc.h


def use_one_arena() -> None:
    """Let all threads allocate from one arena: Python runs one thread at a time. Call it before the first thread."""
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def release_unused() -> None:
    """Return to the kernel what the start has left: parsers, the configuration's text, code of modules that were only run once."""
    gc.collect()
    trim()


def trim() -> None:
    """Return free memory to the kernel."""
    ctypes.CDLL(None).malloc_trim(0)
