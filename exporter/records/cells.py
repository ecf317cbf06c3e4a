"""Widths of text on a terminal, in cells."""

from __future__ import annotations

import unicodedata

from exporter.records.shown import CUT


def padded(text: str, width: int) -> str:
    """Return text padded with spaces to a width in cells of a terminal."""
    return text + " " * (width - cells(text))


def cells(text: str) -> int:
    """Return the width of a text in cells of a terminal."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def cut(text: str, width: int) -> str:
    """Return text cut to a width in cells of a terminal, with a mark where it is cut."""
    if cells(text) <= width:
        return text
    used = cells(CUT)
    for at, char in enumerate(text):
        used += _cells(char)
        if used > width:
            return text[:at] + CUT
    raise AssertionError


def _cells(char: str) -> int:
    if unicodedata.category(char) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1
