"""Scenes for `top`, of records that a test gives."""

from __future__ import annotations

from collections.abc import Iterable

from exporter.library.processes import Totals
from exporter.model import NS, Mode, Outcome
from exporter.records.record import Record
from exporter.top.activity import Activity, Point, Points
from exporter.top.view import Scene


def totals(short: int = 0, failed: int = 0, ratio: float | None = 1.0, mode: Mode | None = Mode.EBPF_CORE) -> Totals:
    exits = dict.fromkeys(Outcome, 0) | {Outcome.OK: short, Outcome.ERROR: failed}
    return Totals(exits, short, short * 1_000_000, short * 1_000_000, short, 0, short, {}, ratio, mode)


def scene(*seconds: Iterable[Record], points: Iterable[Totals | None] = (), dropped: int = 0) -> Scene:
    """Records by the second in which they came; the last one is not over yet. The totals at the end of each second."""
    activity, exact = Activity(0), Points()
    for second, batch in enumerate(seconds):
        activity.add(batch, second * NS)
    for second, each in enumerate(points):
        exact.add(Point(second * NS, each, dropped if second else 0))
    return Scene("host", "12:34:56", "mode ebpf_core", activity, exact, max(1, len(seconds)) * NS)
