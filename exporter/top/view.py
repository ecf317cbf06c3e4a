"""The screen of `top` as text, for any size. Every name in it has been escaped: it is printable, whatever a process is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from functools import partial
from math import ceil
from typing import NamedTuple

from exporter.model import NS
from exporter.records.cells import cells, cut, padded
from exporter.records.shown import NOTHING
from exporter.top.activity import Activity, Points, Sum
from exporter.top.rows import Row, add_others, rows
from exporter.top.state import KEYS, By, State

_SPARKS = " ▁▂▃▄▅▆▇█"
_GOOD_RATIO = 0.99
"""Below it, alerts fire too."""
HEAD = 5
"""Lines above the rows, the titles included."""
_US, _MS = 1000, 1_000_000
_OTHERS = {By.NAME: (15, 2), By.PARENT: (15, 7), By.SPAWNER: (15, 8), By.USER: (10, 11), By.OWNER: (20, 9)}
"""Width and rank of the columns for the most frequent names of a row."""


class Style(Enum):
    """How a line looks."""

    PLAIN = auto()
    BOLD = auto()
    TITLES = auto()
    WARNING = auto()
    FAILING = auto()


class Line(NamedTuple):
    text: str
    style: Style = Style.PLAIN


class Column(NamedTuple):
    """A column of the table; those with the lowest rank stay where the screen is narrow."""

    title: str
    width: int
    rank: int
    text: Callable[[Row, float, int], str]
    """Takes the row, the seconds of the window and the number of all processes in it."""
    is_name: bool = False


class Scene(NamedTuple):
    """Everything that a screen shows, at one moment."""

    host: str
    clock: str
    """Local time."""
    description: str
    """How processes are observed."""
    activity: Activity
    points: Points
    now_ns: int


class Picture(NamedTuple):
    """What a screen shows."""

    lines: list[Line]
    first: int
    """The row at the top: `State.first`, unless there are fewer rows."""


def picture(scene: Scene, state: State, width: int, height: int) -> Picture:
    """Return exactly `height` lines, none wider than `width` cells."""
    groups, seconds = scene.activity.within(state.window, scene.now_ns)
    found = rows(groups, state)
    room = max(0, height - HEAD - 1)
    first = min(state.first, max(0, len(found) - room))
    shown = found[first : first + room]
    add_others(shown, groups, state)
    whole = _whole(found, state)
    head = [*_head(scene, state, whole, seconds, width)]
    body = list(_table(shown, state, seconds, whole.count, width))
    made = [*head, *body]
    made += [Line("")] * (height - 1 - len(made))
    return Picture([Line(cut(text, width), style) for text, style in [*made[: height - 1], _foot(state, width)][:height]], first)


def table(scene: Scene, state: State, most: int) -> Iterator[str]:
    """Yield the lines of the table with all columns, and at most so many rows; for scripts."""
    groups, seconds = scene.activity.within(state.window, scene.now_ns)
    found = rows(groups, state)
    shown = found[:most]
    add_others(shown, groups, state)
    for text, _ in _table(shown, state, seconds, _whole(found, state).count, None):
        yield text.rstrip()


def _whole(found: Sequence[Row], state: State) -> Sum:
    whole = Sum()
    for row in found:
        if state.by is not By.TREE or row.name.startswith(("`-", "|-")):
            whole.add(row.sum)
    return whole


def _head(scene: Scene, state: State, whole: Sum, seconds: float, width: int) -> Iterator[Line]:
    title = f"shortproc top  {scene.host}  {scene.clock}  {scene.description}"
    yield Line(f"{padded(cut(title, width - 7), width - 7)} PAUSED" if state.paused else title, Style.BOLD)
    points, window = scene.points, state.window
    short, cpu = points.rate(lambda each: each.short, window), points.rate(lambda each: each.short_cpu_ns, window)
    exits, failed = points.rate(lambda each: sum(each.exits.values()), window), points.rate(lambda each: each.failed, window)
    parts = (
        f"short {_rate(short)}/s",
        f"CPU {NOTHING if cpu is None else f'{100 * cpu / NS:.1f}%'}",
        f"p50 {_span(whole.quantile_ns(0.5))}",
        f"p99 {_span(whole.quantile_ns(0.99))}",
        f"all {_rate(exits)}/s",
        f"failed {_rate(failed)}/s",
    )
    yield Line("  ".join(parts))
    yield Line(_sparkline(points.rates(lambda each: each.short), width))
    yield _status(points, state, whole, seconds)


def _sparkline(rates: Sequence[float], width: int) -> str:
    peak = max(rates, default=0.0)
    label = f" short/s, last {len(rates)} s, peak {_rate(peak)}"
    room = max(0, width - len(label))
    return "".join(_SPARKS[ceil(8 * rate / peak)] if rate else " " for rate in rates[len(rates) - min(room, len(rates)) :]) + label


def _status(points: Points, state: State, whole: Sum, seconds: float) -> Line:
    last = points.last
    dropped = points.dropped(state.window)
    if last is not None and last.totals is not None:
        ratio = last.totals.capture_ratio
        if last.totals.mode is None:
            return Line("no mode works: nothing is observed", Style.WARNING)
        if ratio is not None and ratio < _GOOD_RATIO:
            return Line(f"{100 * ratio:.1f}% of all clones were observed in the last minute", Style.WARNING)
    if dropped:
        return Line(f"rows show {whole.count} short processes; {dropped} more came faster than they were read", Style.WARNING)
    over = "since the start" if state.window is None else f"in the last {state.window} s"
    known = f" ({seconds:.0f} s so far)" if state.window is not None and seconds < state.window else ""
    only = f", of those with {state.filter}" if state.filter else ""
    return Line(f"{whole.count} short processes {over}{known}{only}, by {state.by}, sorted by {state.sort}")


def _table(shown: Sequence[Row], state: State, seconds: float, whole: int, width: int | None) -> Iterator[Line]:
    columns = list(_columns(state.by))
    if width is not None:
        columns = _fitted(columns, width)
    else:
        for at, each in enumerate(columns):
            if each.is_name:
                columns[at] = each._replace(width=max([each.width, *(cells(each.text(row, seconds, whole)) for row in shown)]))
    yield Line(" ".join(_cell(each, each.title) for each in columns), Style.TITLES)
    for row in shown:
        text = " ".join(_cell(each, each.text(row, seconds, whole)) for each in columns)
        yield Line(text, Style.FAILING if row.sum.failed * 2 >= row.sum.count else Style.PLAIN)


def _columns(by: By) -> Iterator[Column]:
    yield Column("SHORT/s", 8, 1, lambda row, seconds, _: _rate(row.sum.count / seconds))
    yield Column("COUNT", 8, 12, lambda row, *_: f"{row.sum.count}")
    yield Column("%", 5, 10, lambda row, _, whole: f"{100 * row.sum.count / max(1, whole):.1f}")
    yield Column("FAILED", 7, 4, lambda row, *_: f"{row.sum.failed}")
    yield Column("CPU%", 6, 3, _cpu)
    yield Column("P50", 7, 6, lambda row, *_: _span(row.sum.quantile_ns(0.5)))
    yield Column("P99", 7, 5, lambda row, *_: _span(row.sum.quantile_ns(0.99)))
    yield Column(by.upper(), 24 if by is By.TREE else 15, 0, lambda row, *_: row.name, is_name=True)
    if by is not By.TREE:
        for other, (width, rank) in _OTHERS.items():
            if other is not by:
                yield Column(other.upper(), width, rank, partial(_other, other), is_name=True)


def _other(of: By, row: Row, _seconds: float, _whole: int) -> str:
    return row.others.get(of, NOTHING)


def _fitted(columns: Sequence[Column], width: int) -> list[Column]:
    kept = sorted(columns, key=lambda each: each.rank)
    while len(kept) > 1 and sum(each.width + 1 for each in kept) - 1 > width:
        kept.pop()
    found = [each for each in columns if each in kept]
    last = found[-1]
    found[-1] = last._replace(width=max(1, last.width + width - sum(each.width + 1 for each in found) + 1))
    return found


def _cell(column: Column, text: str) -> str:
    return padded(cut(text, column.width), column.width) if column.is_name else text.rjust(column.width)


def _foot(state: State, width: int) -> Line:
    if state.typing is not None:
        text = f"filter: {state.typing}"
        return Line(f"{text if cells(text) < width else text[-width + 1 :]}_", Style.BOLD)
    keys = " ".join(f"{'space' if each.key == ' ' else each.key}:{each.label}" for each in KEYS)
    return Line(padded(cut(keys, width), width), Style.TITLES)


def _cpu(row: Row, seconds: float, _whole: int) -> str:
    if row.sum.cpu_unknown == row.sum.count:
        return NOTHING
    return f"{100 * row.sum.cpu_ns / NS / seconds:.1f}"


def _rate(rate: float | None) -> str:
    return NOTHING if rate is None else f"{rate:.1f}" if rate < 100_000 else f"{rate:.0f}"


def _span(ns: int | None) -> str:
    """Return a duration in at most seven characters."""
    if ns is None:
        return NOTHING
    if ns < _MS:
        return f"{ns / _US:.0f}us"
    return f"{ns / _MS:.1f}ms" if ns < 1000 * _MS else f"{ns / NS:.1f}s"
