"""Values of a record as text for people: in a line of snoop and in a cell of the page.

Every name is escaped: it cannot contain a command for the terminal, begin a line or imitate a column.
"""

from __future__ import annotations

import shlex
import time
from functools import lru_cache

from exporter.model import NS, SIGNALS, UNKNOWN_COMM, Outcome, comm_text
from exporter.model.owner import Owner

NOTHING = "-"
"""An unknown value in snoop."""
QUESTION = "?"
"""An unknown value on the page."""
CUT = ">"
"""The end of a text that is cut."""
OOM_KILLED = "OOMKilled"
"""As Kubernetes calls it."""
_CACHED = 4096
_MS = 1_000_000

name = lru_cache(_CACHED)(comm_text)
"""`comm_text`, with a cache."""


@lru_cache(_CACHED)
def word(raw: bytes) -> str:
    """Return a name as one word: its spaces are escaped too."""
    return NOTHING if raw in (b"", UNKNOWN_COMM) else comm_text(raw).replace(" ", r"\x20")


def label(text: str) -> str:
    """Return a label, which is harmless text, as one word."""
    return text.replace(" ", r"\x20") or NOTHING


@lru_cache(_CACHED)
def owner(kind: str, unit: str, namespace: str, pod: str, container: str) -> str:
    """Return an owner as one word, or nothing."""
    return Owner(kind, unit, namespace, pod, container).text.replace(" ", r"\x20")


@lru_cache(_CACHED)
def stack(names: tuple[bytes, ...]) -> str:
    """Return names as a line of a folded stack, without its number: `;` separates them, so it is escaped in names."""
    return ";".join(name(each).replace(";", r"\x3b") for each in names)


def owner_or_nothing(*labels: str) -> str:
    return owner(*labels) or NOTHING


def owner_or_question(*labels: str) -> str:
    return owner(*labels) or QUESTION


def name_or_question(raw: bytes) -> str:
    return name(raw) if raw else QUESTION


def span(ns: int | None) -> str:
    """Return a duration, always in milliseconds, so that lines can be sorted by it."""
    return NOTHING if ns is None else f"{ns / _MS:.3f}ms"


def milliseconds(ns: int | None) -> str:
    return QUESTION if ns is None else f"{ns / _MS:.3f}"


def number(value: int | None) -> str:
    return NOTHING if value is None else f"{value}"


def number_or_question(value: int | None) -> str:
    return QUESTION if value is None else f"{value}"


def local_time(unix_ns: int) -> str:
    """Return the time of day by the local clock, to the millisecond."""
    return f"{_local_second(unix_ns // NS)}.{unix_ns // _MS % 1000:03}"


def utc_time(unix_ns: int) -> str:
    """Return the time of day in UTC, to the millisecond."""
    seconds, ns = divmod(unix_ns, NS)
    return f"{utc_second(seconds)[11:]}.{ns // _MS:03}"


@lru_cache(16)
def _local_second(seconds: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


@lru_cache(16)
def utc_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def signal_name(number: int) -> str:
    return SIGNALS.get(number, f"SIG{number}")


def command_line(arguments: bytes | None, cut: bool | None) -> str:
    """Return arguments as a shell would take them: quoted where needed, and with escapes for what is not printable."""
    return NOTHING if arguments is None else " ".join(map(_shell_word, arguments.split(b"\0"))) + (CUT if cut else "")


def _shell_word(word: bytes) -> str:
    text = word.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return shlex.quote(text)
    escaped = comm_text(word).replace("'", r"\'")
    return f"$'{escaped}'"


def yes_or_no(value: bool | None, unknown: str = NOTHING) -> str:
    return unknown if value is None else "yes" if value else "no"


def fate(outcome: Outcome, code: int | None, oom_killed: bool | None) -> str:
    """Return `ok`, `exit N`, the name of a signal or `OOMKilled`; without a code, the outcome."""
    if oom_killed:
        return OOM_KILLED
    if code is None or outcome not in (Outcome.ERROR, Outcome.SIGNAL):
        return str(outcome)
    return f"exit {code}" if outcome is Outcome.ERROR else signal_name(code)


def status(outcome: Outcome, code: int | None, oom_killed: bool | None) -> str:
    """Return `fate` as a shell's `$?` shows it: success is 0."""
    return {Outcome.OK: "0", Outcome.UNKNOWN: NOTHING}.get(outcome) or fate(outcome, code, oom_killed)
