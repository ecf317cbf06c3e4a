"""The text formats: Prometheus text 0.0.4 and 1.0.0, and OpenMetrics 1.0.

For names without other characters than ASCII letters, digits and underscores, 0.0.4 and 1.0.0 are the same. OpenMetrics has the same
samples; it differs in the name of counters in HELP and TYPE, in quotes in HELP, and in its end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate

from exporter.metrics.catalogue import Family
from exporter.metrics.families import Exposed, Histograms, Labels, NativeHistograms, Numbers, label_pairs

_PLAIN = 1e6
"""Below it, Go and Python write a number in the same way."""
_VALUE_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


class TextEncoder:
    """Keeps the text before the value of each series that the last scrape showed: to make it costs ten times as much as the value."""

    def __init__(self) -> None:
        self._starts: dict[Family, dict[Labels, str]] = {}
        self._histogram_starts: dict[tuple[Family, tuple[float, ...]], dict[Labels, tuple[str, ...]]] = {}

    def encode(self, families: Iterable[Exposed], *, openmetrics: bool = False) -> bytes:
        """Return the body of a scrape. Native histograms are left out."""
        lines: list[str] = []
        starts, self._starts = self._starts, {}
        histogram_starts, self._histogram_starts = self._histogram_starts, {}
        for each in families:
            match each:
                case NativeHistograms():
                    continue
                case Numbers(family):
                    lines.append(_head(family, openmetrics))
                    self._starts[family] = _numbers(each, starts.get(family, {}), lines)
                case Histograms(family, bounds):
                    lines.append(_head(family, openmetrics))
                    self._histogram_starts[family, bounds] = _histograms(each, histogram_starts.get((family, bounds), {}), lines)
        if openmetrics:
            lines.append("# EOF\n")
        return "".join(lines).encode()


def _numbers(each: Numbers, known: dict[Labels, str], lines: list[str]) -> dict[Labels, str]:
    """Add lines. Returns the starts that they have."""
    family, shown = each.family, {}
    for labels, value, _ in each.series:
        start = known.get(labels) or _start(family.name, label_pairs(family.labels, labels))
        shown[labels] = start
        lines.append(f"{start}{float(value)!r}\n" if -_PLAIN < value < _PLAIN else f"{start}{number(value)}\n")
    return shown


def _histograms(each: Histograms, known: dict[Labels, tuple[str, ...]], lines: list[str]) -> dict[Labels, tuple[str, ...]]:
    shown = {}
    for labels, histogram, _ in each.series:
        starts = known.get(labels) or _histogram_starts(each.family, labels, each.bounds)
        shown[labels] = starts
        cumulative = list(accumulate(histogram.buckets))
        values = (*cumulative, cumulative[-1], histogram.sum)
        lines += [f"{start}{number(value)}\n" for start, value in zip(starts, values, strict=True)]
    return shown


def number(value: float) -> str:
    """Return a number as Go writes it in a scrape, but whole ones with `.0`."""
    value = float(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    whole, dot, fraction = text.partition(".")
    if value < _PLAIN or not dot or "e" in fraction:
        return text
    digits = f"{whole[0]}.{whole[1:]}{fraction}".rstrip("0").rstrip(".")
    return f"{digits}e+{len(whole) - 1:02}"


def _head(family: Family, openmetrics: bool) -> str:
    name, about = family.name, family.about.translate(_VALUE_ESCAPES if openmetrics else _HELP_ESCAPES)
    if openmetrics and family.kind == "counter":
        name = name.removesuffix("_total")
    return f"# HELP {name} {about}\n# TYPE {name} {family.kind}\n"


def _start(name: str, labels: list[tuple[str, str]]) -> str:
    pairs = ",".join(f'{label}="{value.translate(_VALUE_ESCAPES)}"' for label, value in labels)
    return f"{name}{{{pairs}}} " if pairs else f"{name} "


def _histogram_starts(family: Family, labels: Labels, bounds: tuple[float, ...]) -> tuple[str, ...]:
    names = (*family.labels, "le")
    buckets = (_start(f"{family.name}_bucket", label_pairs(names, (*labels, number(bound)))) for bound in (*bounds, math.inf))
    pairs = label_pairs(family.labels, labels)
    return (*buckets, _start(f"{family.name}_count", pairs), _start(f"{family.name}_sum", pairs))
