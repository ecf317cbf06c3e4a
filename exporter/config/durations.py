"""Durations: a number of seconds, or numbers with units, as `500ms`, `2s` and `1m30s`. One form for flags and files."""

from __future__ import annotations

import re

from exporter.model import NS

UNITS = {"ns": 1, "us": 1000, "µs": 1000, "μs": 1000, "ms": 1000_000, "s": NS, "m": 60 * NS, "h": 3600 * NS, "d": 86400 * NS}
"""Nanoseconds of each. The first µ is U+00B5, the second U+03BC."""
PATTERN = r"[0-9.]+|([0-9.]+(ns|us|µs|μs|ms|s|m|h|d))+"
"""For a JSON schema."""

_LONGEST = 40
_NUMBER = r"([0-9]+)(?:\.([0-9]*))?"
_PLAIN = re.compile(_NUMBER)
_PART = re.compile(rf"{_NUMBER}({'|'.join(UNITS)})")
_WITH_UNITS = re.compile(rf"(?:{_NUMBER}(?:{'|'.join(UNITS)}))+")


def parse(text: str) -> int | None:
    """Return nanoseconds, or None if the text is not a duration."""
    if len(text) > _LONGEST:
        return None
    if plain := _PLAIN.fullmatch(text):
        return _ns(plain[1], plain[2], NS)
    if not _WITH_UNITS.fullmatch(text):
        return None
    return sum(_ns(whole, fraction, UNITS[unit]) for whole, fraction, unit in _PART.findall(text))


def has_unit(text: str) -> bool:
    return not _PLAIN.fullmatch(text)


def written(seconds: float) -> str:
    """Return a duration with the largest unit that needs no fraction: 0.5 as 500ms."""
    ns = round(seconds * NS)
    unit = next(unit for unit in ("d", "h", "m", "s", "ms", "us", "ns") if ns % UNITS[unit] == 0 and (ns or unit == "s"))
    return f"{ns // UNITS[unit]}{unit}"


def _ns(whole: str, fraction: str | None, unit_ns: int) -> int:
    digits = fraction or ""
    parts: int = 10 ** len(digits)
    return (2 * int(whole + digits) * unit_ns + parts) // (2 * parts)  # rounded
