"""Lines for a terminal: the columns that fit its width, in colours, with the header again on each screenful."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from exporter.model import Outcome
from exporter.records.cells import cells, cut, padded
from exporter.records.fields import Shown, as_tuple, compiled
from exporter.records.record import FIELDS, Record
from exporter.records.shown import CUT, NOTHING
from exporter.snoop.lines import columns_of
from exporter.supervision.modes import SPECS

_BOLD, _RED, _MAGENTA, _PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[35m", "\x1b[0m"
_COLOURS = {Outcome.ERROR: _RED, Outcome.SIGNAL: _MAGENTA}
_COLOURED = "OUTCOME"
CUT_BEFORE = "<"
"""The beginning of a text whose beginning is cut."""


def has_colours(fd: int, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether colours may be written to a terminal; https://no-color.org says how users refuse them."""
    return os.isatty(fd) and not environment.get("NO_COLOR") and environment.get("TERM") not in {"dumb", ""}


class Place(NamedTuple):
    """A column on the screen."""

    column: Shown
    at: int
    """Index of the column among all."""
    width: int


def fitted(columns: Sequence[Shown], shown: Iterable[int], width: int | None) -> list[Place]:
    """Return the columns `shown` as far as they fit: the ones with the lowest ranks, as wide as possible. None: there is no limit."""
    by_rank = sorted(shown, key=lambda at: columns[at].narrow.rank)
    if width is None:
        return [Place(columns[at], at, int(columns[at].width[1:] or 0)) for at in sorted(by_rank)]
    while len(by_rank) > 1 and sum(columns[at].narrow.least + 1 for at in by_rank) - 1 > width:
        by_rank.pop()
    spare = width - sum(columns[at].narrow.least + 1 for at in by_rank) + 1
    widths = {}
    for at in by_rank:
        least = columns[at].narrow.least
        widths[at] = min(max(least, int(columns[at].width[1:] or width)), least + max(0, spare))
        spare -= widths[at] - least
    last = max(by_rank)
    widths[last] += max(0, spare)
    return [Place(columns[at], at, widths[at]) for at in sorted(by_rank)]


class Screen:
    """Makes lines of records. What all records of a screenful leave empty has no column on the next one."""

    def __init__(self, flags: Sequence[str], *, wide: bool, colours: bool) -> None:
        """`flags` ask for more columns. `wide`: all columns are shown as they are."""
        self._columns = columns_of(FIELDS, flags)
        self._cells = compiled(FIELDS, ((each.form, each.of) for each in self._columns), as_tuple)
        self._wide = wide
        self._colours = colours
        self._places: list[Place] = []
        self._size = (0, 0)
        self._left = 0
        """Lines until the next header."""
        self._seen = set[int]()
        """Columns that had a value since the last header."""

    def lines(self, batch: Sequence[Record], size: tuple[int, int]) -> Iterator[str]:
        """Yield a line for each record, and headers between them. `size`: columns and lines of the terminal, 0 if it does not tell."""
        for record in batch:
            if not self._left or size != self._size:
                yield self._header(record, size)
            texts: tuple[str, ...] = self._cells(*record)
            self._seen.update(at for at, text in enumerate(texts) if text != NOTHING)
            self._left -= 1
            yield self._line(texts, record.outcome)

    def _header(self, record: Record, size: tuple[int, int]) -> str:
        columns, rows = size
        known = {at for at, each in enumerate(self._columns) if each.fact in SPECS[record.mode].fills}
        shown = known if self._wide or not self._seen else self._seen
        self._places = fitted(self._columns, shown, None if self._wide or not columns else columns)
        self._size, self._left, self._seen = size, max(rows - 1, 10) if rows else 24, set()
        text = " ".join(_aligned(each, each.column.title) for each in self._places).rstrip()
        text = text if self._wide or not columns else cut(text, columns)
        return f"{_BOLD}{text}{_PLAIN}" if self._colours else text

    def _line(self, texts: Sequence[str], outcome: Outcome) -> str:
        parts = [_aligned(each, texts[each.at] if self._wide else shortened(texts[each.at], each)) for each in self._places]
        width = self._size[0]
        if not self._wide and width and sum(map(cells, parts)) + len(parts) - 1 > width:
            return cut(" ".join(parts), width)
        if self._colours and (colour := _COLOURS.get(outcome)):
            parts = [
                f"{colour}{part}{_PLAIN}" if each.column.title == _COLOURED else part
                for each, part in zip(self._places, parts, strict=True)
            ]
        return " ".join(parts).rstrip()


def shortened(text: str, place: Place) -> str:
    """Return the text of a cell as short as its column. Numbers are never shortened."""
    column, _, width = place
    if not width or column.width.startswith(">") or cells(text) <= width:
        return text
    match column.narrow.keep:
        case "begin":
            return cut(text, width)
        case "head":
            return cut(text, width + len(CUT))[:-1]
        case "end":
            backwards = cut(text[::-1], width)
            return CUT_BEFORE + backwards[:-1][::-1]


def _aligned(place: Place, text: str) -> str:
    return text.rjust(place.width) if place.column.width.startswith(">") else padded(text, place.width)
