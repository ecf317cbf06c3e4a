"""A record as a line for people. Every name is escaped: none can hold a command for the terminal, begin a line or imitate a column."""

from __future__ import annotations

import time
import unicodedata
from functools import lru_cache

from exporter.model import NS, SIGNALS, UNKNOWN_COMM, Outcome, comm_text
from exporter.records.record import Record

_MS = 1_000_000
_CACHED = 4096
_CUT = ">"
NOTHING = "-"

HEADER = f"{'TIME':<12} {'PID':>7} {'PPID':>7} {'COMM':<15} {'RUNTIME':>9} {'CPU':>9} {'OUTCOME':<9} {'PARENT':<15} EXE"


def line(record: Record) -> str:
    """Align it with `HEADER`."""
    ppid = record.ppid or NOTHING
    return (
        f"{moment(record.ended_ns)} {record.pid:>7} {ppid:>7} {padded(name(record.comm), 15)} {span(record.runtime_ns):>9} "
        f"{span(record.cpu_ns):>9} {outcome(record):<9} {padded(name(record.parent_comm), 15)} {name(record.exe)}"
    )


@lru_cache(_CACHED)
def name(raw: bytes) -> str:
    """Escape a name as everywhere, and its spaces too: it stays one word. What is not known is `NOTHING`."""
    return NOTHING if raw in (b"", UNKNOWN_COMM) else comm_text(raw).replace(" ", r"\x20")


def span(ns: int | None) -> str:
    """Spell a time in one unit, so that lines can be sorted by it."""
    return NOTHING if ns is None else f"{ns / _MS:.3f}ms"


def outcome(record: Record) -> str:
    """How it ended, as a shell's `$?` would tell."""
    kind, code = record.outcome, record.code
    if kind is Outcome.OK:
        return "0"
    if kind is Outcome.UNKNOWN:
        return NOTHING
    if code is None:
        return kind.value
    return f"exit {code}" if kind is Outcome.ERROR else SIGNALS.get(code, f"SIG{code}")


def moment(unix_ns: int) -> str:
    """Spell the local wall clock, to the millisecond."""
    seconds, ns = divmod(unix_ns, NS)
    return f"{_second(seconds)}.{ns // _MS:03}"


@lru_cache(16)
def _second(seconds: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def padded(text: str, width: int) -> str:
    """Fill up with spaces to a width in cells of a terminal."""
    return text + " " * (width - cells(text))


def cells(text: str) -> int:
    """How wide a terminal shows it."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def cut(text: str, width: int) -> str:
    """Cut to a width in cells of a terminal, visibly."""
    if cells(text) <= width:
        return text
    used = cells(_CUT)
    for at, char in enumerate(text):
        used += _cells(char)
        if used > width:
            return text[:at] + _CUT
    raise AssertionError


def _cells(char: str) -> int:
    if unicodedata.category(char) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1
