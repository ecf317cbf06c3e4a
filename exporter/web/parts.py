"""Parts of the page: tables, which the script keeps up to date, and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_NOTHING = "None yet."
_KINDS = {"#": "number", "@": "name"}
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})

Live = Any
"""The data with which the script updates a part."""


def escape(text: str) -> str:
    """Return the text for HTML, as `html.escape` does, which brings the names of all characters into memory."""
    return text.translate(_ESCAPES)


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text. The first character of a column's title may be its kind: # for numbers, @ for names."""

    key: str
    title: str
    caption: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    shares: Sequence[float] = ()
    """Length of each row's bar in percent; empty for no bars."""
    marked: int | None = None
    """Number of the highlighted row."""
    tall: bool = False
    """Whether it scrolls by itself."""
    filtered: bool = False
    """Whether the script filters and sorts it."""

    def live(self) -> Live:
        """Return rows, bars and the highlighted row."""
        return {"rows": self.rows, "shares": self.shares, "marked": self.marked}

    def section(self, *more: str, css: str = "") -> str:
        """Return a panel with the table as HTML, and `more` below it."""
        return panel(self.title, self.scrolling(), *more, css=css)

    def scrolling(self, css: str = "") -> str:
        """Return the table without heading, in a box in which it scrolls. The caption is HTML already."""
        return f'<div class="wide{" tall" * self.tall} {css}" tabindex="0" role="region" aria-label="{self.title}">{self._table()}</div>'

    def _table(self) -> str:
        css = [f' class="{_KINDS[column[0]]}"' if column[0] in _KINDS else "" for column in self.columns]
        heads = "".join(f'<th scope="col"{kind}>{column.lstrip("#@")}</th>' for column, kind in zip(self.columns, css, strict=True))
        body = "".join(self._row(number, css) for number in range(len(self.rows)))
        body = body or f'<tr><td class="soft" colspan="{len(self.columns)}">{_NOTHING}</td></tr>'
        kind = ' class="filtered"' if self.filtered else ""
        return (
            f'<table id="{self.key}"{kind}><caption>{self.caption}</caption><thead><tr>{heads}</tr></thead>'
            f'<tbody data-nothing="{_NOTHING}">\n{body}</tbody></table>'
        )

    def _row(self, number: int, css: list[str]) -> str:
        first, *rest = self.rows[number]
        head = f'<th scope="row"{css[0]}>{escape(first)}{_bar(self.shares[number]) if self.shares else ""}</th>'
        cells = "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(rest, css[1:], strict=True))
        marked = ' class="on"' if number == self.marked else ""
        return f"<tr{marked}>{head}{cells}</tr>\n"


def panel(title: str, *contents: str, css: str = "") -> str:
    """Return a part of the page with a heading, as HTML."""
    return f'<section class="panel {css}"><h2>{title}</h2>{"".join(contents)}</section>'


def _bar(percent: float) -> str:
    return f'<svg class="bar" aria-hidden="true"><rect width="{percent:.1f}%" height="100%" rx="2"/></svg>'


def shares(values: Sequence[float]) -> list[float]:
    """Return each value in percent of the largest."""
    most = max(values, default=0)
    return [round(100 * value / most, 1) if most else 0.0 for value in values]


def percent(part: int, whole: int) -> str:
    """Return a share with one digit after the point. It is 100.0 only for the whole."""
    tenths = round(1000 * part / whole) if whole else 0
    return f"{(min(tenths, 999) if part < whole else tenths) / 10:.1f} %"


def duration(seconds: float) -> str:
    """Return the bound of a bucket with its unit."""
    if seconds < 1:
        return f"{seconds * 1000:g} ms"
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
