"""Parts of the page that the script keeps up to date: tables and the histogram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_NOTHING = "None yet."
_HEIGHT = 140
_LABELS = 7
_KINDS = {"#": "number", "@": "name"}
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})

Live = dict[str, Any]
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

    def live(self) -> Live:
        """Return rows, bars and the highlighted row."""
        return {"rows": self.rows, "shares": self.shares, "marked": self.marked}

    def section(self) -> str:
        """Return the table with its heading as HTML. The caption is HTML already."""
        return (
            f"<section><h2>{self.title}</h2>"
            f'<div class="wide{" tall" * self.tall}" tabindex="0" role="region" aria-label="{self.title}">{self.table()}</div></section>'
        )

    def table(self) -> str:
        """Return the table without heading as HTML."""
        css = [f' class="{_KINDS[column[0]]}"' if column[0] in _KINDS else "" for column in self.columns]
        heads = "".join(f'<th scope="col"{kind}>{column.lstrip("#@")}</th>' for column, kind in zip(self.columns, css, strict=True))
        body = "".join(self._row(number, css) for number in range(len(self.rows)))
        body = body or f'<tr><td class="soft" colspan="{len(self.columns)}">{_NOTHING}</td></tr>'
        return (
            f'<table id="{self.key}"><caption>{self.caption}</caption><thead><tr>{heads}</tr></thead>'
            f'<tbody data-nothing="{_NOTHING}">\n{body}</tbody></table>'
        )

    def _row(self, number: int, css: list[str]) -> str:
        first, *rest = self.rows[number]
        head = f'<th scope="row"{css[0]}>{escape(first)}{_bar(self.shares[number]) if self.shares else ""}</th>'
        cells = "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(rest, css[1:], strict=True))
        marked = ' class="on"' if number == self.marked else ""
        return f"<tr{marked}>{head}{cells}</tr>\n"


@dataclass(frozen=True, slots=True)
class Histogram:
    """A bar chart of processes by runtime."""

    bounds_seconds: Sequence[float]
    buckets: Sequence[int]
    """Processes per bucket, not cumulative: one more than bounds. Empty if nothing has been counted."""
    threshold_seconds: float

    def live(self) -> Live:
        """Return the heights of the bars, and the rows of the table."""
        return {"bars": self._heights(), "rows": self._numbers().rows}

    def section(self) -> str:
        """Return the chart as HTML, with its numbers in a table that can be unfolded."""
        step = 100 / (len(self.bounds_seconds) + 1)
        bounds = (*self.bounds_seconds, math.inf)
        short = ' class="short"'
        bars = "".join(
            f'<rect x="{(number + 0.1) * step:.2f}%" width="{0.8 * step:.2f}%" y="{_HEIGHT - height}" height="{height}" rx="2"'
            f"{short if bound <= self.threshold_seconds else ''}/>"
            for number, (bound, height) in enumerate(zip(bounds, self._heights(), strict=True))
        )
        apart = math.ceil(len(self.bounds_seconds) / _LABELS) or 1
        labels = "".join(
            f'<text x="{(number + 1) * step:.2f}%" y="{_HEIGHT + 18}">{duration(bound)}</text>'
            for number, bound in enumerate(self.bounds_seconds)
            if number % apart == 0
        )
        return f"""<section><h2>Runtimes</h2>
<figure class="card"><svg id="histogram" role="img" aria-label="Bar chart: processes by runtime. The same numbers follow as a table."
 width="100%" height="{_HEIGHT + 26}"><line x1="0" x2="100%" y1="{_HEIGHT}" y2="{_HEIGHT}"/>{bars}{labels}</svg>
<figcaption>Exited processes by runtime, since the exporter started. Short processes are coloured.</figcaption>
<details><summary>Table</summary><div class="wide">{self._numbers().table()}</div></details></figure></section>"""

    def _counts(self) -> Sequence[int]:
        return self.buckets or [0] * (len(self.bounds_seconds) + 1)

    def _heights(self) -> list[int]:
        most = max(self._counts()) or 1
        return [math.ceil(_HEIGHT * count / most) for count in self._counts()]  # rounded up: a single process is visible

    def _numbers(self) -> Table:
        names = [f"up to {duration(bound)}" for bound in self.bounds_seconds]
        whole = sum(self._counts())
        rows = [(name, f"{count:,}", percent(count, whole)) for name, count in zip((*names, "longer"), self._counts(), strict=True)]
        return Table("runtimes", "", "Each row excludes the rows above it.", ("Runtime", "#Processes", "#Share"), rows)


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
