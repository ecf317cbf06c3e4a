"""Bar charts of the page: short processes by second, and processes by runtime. Their numbers follow as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from exporter.web import queries
from exporter.web.parts import Live, Table, duration, panel, percent
from exporter.web.timeline import Seconds

_LABELS = 7
_SLICE_SECONDS = 10
_HEIGHT = 90


@dataclass(frozen=True, slots=True)
class Bars:
    """A chart. Its elements get their heights from `live`, as text that the script sets too."""

    key: str
    about: str
    """For those who cannot see it."""
    height: int
    """In pixels."""
    values: Sequence[float | None]
    """None: unknown, drawn as such."""
    tops: Sequence[float | None] = ()
    """Drawn behind the values, and not lower."""
    marked: Sequence[bool] = ()
    labels: Sequence[tuple[float, str]] = ()
    """Texts below it, with their places in percent."""

    def live(self) -> Live:
        """Return heights in pixels, first those behind; None: unknown."""
        most = max((value for value in (*self.values, *self.tops) if value is not None), default=0) or 1
        return [None if value is None else math.ceil(self.height * value / most) for value in (*self.tops, *self.values)]

    def svg(self) -> str:
        """Return it as HTML."""
        step, count = 100 / len(self.values), len(self.values)
        shown = "".join(
            f'<rect x="{(at % count + 0.1) * step:.2f}%" width="{0.8 * step:.2f}%" y="{0 if height is None else self.height - height}"'
            f' height="{self.height if height is None else height}" class="{self._kind(at, height)}"/>'
            for at, height in enumerate(self.live())
        )
        texts = "".join(f'<text x="{x:.2f}%" y="{self.height + 18}">{text}</text>' for x, text in self.labels)
        height = self.height + (26 if self.labels else 0)
        return (
            f'<svg id="{self.key}" class="bars" role="img" aria-label="{self.about}" width="100%" height="{height}">'
            f'<line x1="0" x2="100%" y1="{self.height}" y2="{self.height}"/>{shown}{texts}</svg>'
        )

    def _kind(self, at: int, height: float | None) -> str:
        value = at - len(self.tops)
        kind = "top" if value < 0 else "marked" if not self.marked or self.marked[value] else "plain"
        return kind if height is not None else f"{kind} unknown"


@dataclass(frozen=True, slots=True)
class TimelineCharts:
    """Short processes of each second of the last minute, and of the last 15 minutes."""

    seconds: Seconds
    unix_ahead: float
    """Unix time minus the monotonic clock."""

    def bars(self) -> tuple[Bars, Bars]:
        """Return both charts."""
        slices = self.seconds.slices(_SLICE_SECONDS)
        most = [max(each.known(), default=None) for each in slices]
        means = [each.per_second() for each in slices]
        about = "Bar chart: short processes {}. The same numbers follow as a table."
        minute, quarter = self.seconds.last(60).short_exits, "per second in the last 15 minutes"
        ends = (0, "60 s ago"), (50, "30 s ago"), (100, "now")
        return (
            Bars("minute", about.format("in each second of the last minute"), _HEIGHT, minute, labels=ends),
            Bars("quarter", about.format(quarter), _HEIGHT, means, most, labels=((0, "15 min ago"), (66.7, "5 min ago"), (100, "now"))),
        )

    def tables(self) -> tuple[Table, Table]:
        """Return the numbers of both, the newest first."""
        minute = self.seconds.last(60)
        begin = minute.end - len(minute.short_exits)
        by_second = [(self._time(begin + at), "?" if n is None else f"{n:,}") for at, n in enumerate(minute.short_exits)]
        by_minute = [
            (self._time(each.end - len(each.short_exits)), f"{sum(each.known()):,}", f"{max(each.known()):,}")
            for each in self.seconds.slices(60)
            if each.known()
        ]
        return (
            Table("seconds", "By second", "Newest first; times in UTC.", ("Second", "#Short processes"), by_second[::-1], tall=True),
            Table("minutes", "By minute", "Newest first; times in UTC.", ("From", "#Short", "#Busiest second"), by_minute[::-1], tall=True),
        )

    def texts(self) -> dict[str, str]:
        """Return the captions by the ID of their element."""
        return {
            "minute-most": f"Last minute, each second. {self._busiest(self.seconds.last(60))}",
            "quarter-most": f"Last 15 minutes: mean and busiest second of each {_SLICE_SECONDS} s. {self._busiest(self.seconds)}",
        }

    def section(self, numbers: str) -> str:
        """Return both charts as HTML, with `numbers` beside them."""
        figures = (
            f'<figure>{bars.svg()}<figcaption id="{key}">{text}</figcaption>'
            f"<details><summary>Table</summary>{table.scrolling()}</details></figure>"
            for bars, table, (key, text) in zip(self.bars(), self.tables(), self.texts().items(), strict=True)
        )
        return panel(
            "Short processes per second", f'<div class="timeline">{"".join(figures)}{numbers}</div>', queries.BURSTS.details(), css="all"
        )

    def _busiest(self, seconds: Seconds) -> str:
        most = max(seconds.known(), default=0)
        if not most:
            return "None so far."
        at = max(at for at, n in enumerate(seconds.short_exits) if n == most)
        return f"Most: {most:,} at {self._time(seconds.end - len(seconds.short_exits) + at)} UTC."

    def _time(self, second: int) -> str:
        return f"{datetime.fromtimestamp(second + self.unix_ahead, UTC):%H:%M:%S}"


@dataclass(frozen=True, slots=True)
class Histogram:
    """Processes by runtime."""

    bounds_seconds: Sequence[float]
    buckets: Sequence[int]
    """Processes per bucket, not cumulative: one more than bounds. Empty if nothing has been counted."""
    threshold_seconds: float

    def bars(self) -> Bars:
        """Return the chart. Short processes are coloured."""
        step = 100 / (len(self.bounds_seconds) + 1)
        apart = math.ceil(len(self.bounds_seconds) / _LABELS) or 1
        return Bars(
            "histogram",
            "Bar chart: processes by runtime. The same numbers follow as a table.",
            140,
            self._counts(),
            marked=[bound <= self.threshold_seconds for bound in (*self.bounds_seconds, math.inf)],
            labels=[((at + 1) * step, duration(bound)) for at, bound in enumerate(self.bounds_seconds) if at % apart == 0],
        )

    def section(self) -> str:
        """Return the chart as HTML."""
        figure = f"""<figure>{self.bars().svg()}
<figcaption>Exited processes by runtime, since the exporter started. Short processes are coloured.</figcaption>
<details><summary>Table</summary>{self.numbers().scrolling()}</details></figure>"""
        return panel("Runtimes", figure, queries.RUNTIMES.details())

    def numbers(self) -> Table:
        """Return the same as a table."""
        names = [f"up to {duration(bound)}" for bound in self.bounds_seconds]
        whole = sum(self._counts())
        rows = [(name, f"{count:,}", percent(count, whole)) for name, count in zip((*names, "longer"), self._counts(), strict=True)]
        return Table("runtimes", "Runtimes", "Each row excludes the rows above it.", ("Runtime", "#Processes", "#Share"), rows)

    def _counts(self) -> Sequence[int]:
        return self.buckets or [0] * (len(self.bounds_seconds) + 1)
