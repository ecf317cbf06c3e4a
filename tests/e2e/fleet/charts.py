"""Draws numbers over time as SVG, in roughly the colours and units of Grafana."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

_RIGHT, _TOP, _BOTTOM = 10, 8, 20
_LETTER = 6.8
"""Pixels."""
_SCALES: Mapping[str, Sequence[tuple[float, str]]] = {
    "s": ((60, " min"), (1, " s"), (1e-3, " ms"), (1e-6, " µs"), (1e-9, " ns")),
    "bytes": ((2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"), (1, " B")),
    "percentunit": ((0.01, "%"),),
    "short": ((1e6, " Mil"), (1e3, " K"), (1, "")),
    "count": ((1e6, "M"), (1e3, "K"), (1, "")),
    "none": ((1, ""),),
}


class Series(NamedTuple):
    """What a query returned: a number, or a native histogram, for each time."""

    name: str
    query: str
    labels: Mapping[str, str]
    points: Sequence[tuple[float, Any]]

    @property
    def last(self) -> float:
        """The number to show where there is room for one."""
        return float(self.points[-1][1])


class Mark(NamedTuple):
    """An annotation."""

    start: float
    end: float
    colour: str


class Band(NamedTuple):
    """A line and the area below it: time, bottom and top of each point."""

    colour: str
    opacity: float
    points: Sequence[tuple[float, float, float]]


class Span(NamedTuple):
    """A rectangle, with a text if there is room."""

    start: float
    end: float
    low: float
    high: float
    colour: str
    opacity: float
    text: str = ""


class Axes(NamedTuple):
    """Where times and values are in a picture of this size."""

    width: int
    height: int
    start: float
    end: float
    low: float
    high: float
    is_log: bool = False
    left: float = 0
    """Pixels for the labels."""

    def x(self, at: float) -> float:
        """Pixels from the left."""
        return self.left + (at - self.start) / (self.end - self.start) * (self.width - self.left - _RIGHT)

    def y(self, value: float) -> float:
        """Pixels from above."""
        low, high, at = (math.log10(max(each, 1e-12)) if self.is_log else each for each in (self.low, self.high, value))
        return self.height - _BOTTOM - max(0.0, (at - low) / (high - low)) * (self.height - _BOTTOM - _TOP)

    def ticks(self, unit: str) -> dict[float, str]:
        """Round values, four or so, and how they are shown."""
        if self.is_log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            every, parts = max(1, (last - first) // 4), (1, 2, 5) if last - first < 3 else (1,)
            values = [
                part * 10.0**power for power in range(first, last, every) for part in parts if self.low <= part * 10.0**power <= self.high
            ]
        else:
            step = round_up((self.high - self.low) / 5, unit)
            values = [self.low + step * number for number in range(int((self.high - self.low) / step + 1e-9) + 1)]
        return {value: shown(value, unit) for value in values}


def round_up(value: float, unit: str) -> float:
    """The next of 1, 2, 2.5, 5, 10, ...; of bytes, so many KiB, MiB, ..."""
    base = 1024.0 ** math.floor(math.log(value, 1024)) if unit == "bytes" else 1.0
    power = base * 10.0 ** math.floor(math.log10(value / base))
    return next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= value * (1 - 1e-9))


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """A number with its unit."""
    kind, _, after = unit.partition(":")
    scales = _SCALES["none" if kind == "suffix" else kind]
    factor, symbol = next((scale for scale in scales if (abs(value) or 1) >= scale[0]), scales[-1])
    number = value / factor
    digits = decimals if decimals is not None else max(0, 2 - math.floor(math.log10(abs(number)))) if number else 0
    text = f"{number:.{digits}f}"
    if decimals is None and digits:
        text = text.rstrip("0").rstrip(".")
    return f"{text}{symbol} {after.strip()}".rstrip()


def chart(
    axes: Axes, labels: Mapping[float, str], bands: Iterable[Band] = (), spans: Iterable[Span] = (), marks: Iterable[Mark] = ()
) -> str:
    """All of it as SVG, with labels at these values."""
    bottom, axes = axes.height - _BOTTOM, axes._replace(left=10 + _LETTER * max(map(len, labels.values())))
    parts = [f'<svg width="{axes.width}" height="{axes.height}">']
    for value, label in labels.items():
        parts.append(f'<path class="grid" d="M{axes.left},{axes.y(value):.1f}H{axes.width - _RIGHT}"/>')
        parts.append(f'<text x="{axes.left - 6}" y="{axes.y(value) + 4:.1f}" text-anchor="end">{escape(label)}</text>')
    for minute in range(math.ceil(axes.start / 60), int(axes.end / 60) + 1):
        x = axes.x(60 * minute)
        clock = time.strftime("%H:%M", time.gmtime(60 * minute))
        parts.append(
            f'<path class="grid" d="M{x:.1f},{_TOP}V{bottom}"/><text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{clock}</text>'
        )
    for span in spans:
        left, right, top = axes.x(span.start), axes.x(span.end), axes.y(span.high)
        size = f'width="{right - left:.1f}" height="{axes.y(span.low) - top:.1f}"'
        parts.append(f'<rect x="{left:.1f}" y="{top:.1f}" {size} fill="{span.colour}" fill-opacity="{span.opacity:.2f}"/>')
        if len(span.text) * _LETTER + 12 < right - left:
            parts.append(f'<text class="state" x="{left + 6:.1f}" y="{(top + axes.y(span.low)) / 2 + 4:.1f}">{escape(span.text)}</text>')
    for band in bands:
        upper = [f"{axes.x(at):.1f},{axes.y(top):.1f}" for at, _, top in band.points]
        lower = [f"{axes.x(at):.1f},{axes.y(base):.1f}" for at, base, _ in reversed(band.points)]
        parts.append(f'<path fill="{band.colour}" fill-opacity="{band.opacity}" d="M{"L".join(upper + lower)}Z"/>')
        parts.append(f'<path fill="none" stroke="{band.colour}" stroke-width="1.3" d="M{"L".join(upper)}"/>')
    for mark in marks:
        left, right = axes.x(mark.start), axes.x(mark.end)
        if mark.start > axes.start:
            parts.append(f'<path stroke="{mark.colour}" stroke-dasharray="4 3" d="M{left:.1f},{_TOP}V{bottom}"/>')
        parts.append(f'<rect x="{left - 3:.1f}" y="{bottom}" width="{right - left + 6:.1f}" height="4" fill="{mark.colour}"/>')
    return "".join((*parts, "</svg>"))
