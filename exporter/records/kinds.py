"""The kinds of values in a record, and how each is written in JSON, SQLite, snoop and on the page. Forms run per record: they are fast."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from exporter.model import NS, SIGNALS, Mode, Outcome, comm_text
from exporter.model.events import EventKind
from exporter.records import shown
from exporter.records.shown import utc_second

_CACHED = 4096
_MOST_ANCESTORS = 64
_OK, _ERROR, _SIGNAL, _UNKNOWN = Outcome  # quicker than attributes of the enum
_ESCAPE = re.compile(r"\\(?:\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
_SHELL_WORD = re.compile(r"""\$'(?:[^'\\]|\\.)*'|(?:[^\s'"]|'[^']*'|"[^"]*")+""")
_MOMENT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})\.([0-9]{9})Z")
_SIGNAL_NUMBERS = {name: number for number, name in SIGNALS.items()}


Form = Callable[..., Any]
"""A function that writes one value, or several together, in one of these places."""


class JsonForm(NamedTuple):
    """A form for JSON."""

    about: str
    """Description for the documents."""
    value: Form
    text: Callable[..., str]
    """Returns the value as JSON text, faster than through `value`."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value."""

    about: str
    """Meaning of a value in Python and SQLite, besides its type; for the documents."""
    json: JsonForm
    read: Callable[[Any], Any]
    """Reads a value from JSON. Trusts nothing: it raises an error or returns a valid value."""
    column: Literal["INTEGER", "TEXT"]
    """Type of its column in SQLite."""
    stored: Callable[[Any], int | str | None] | None
    """Returns the value for SQLite; None to store the value itself."""
    snoop: Callable[..., str]
    page: Callable[..., str]
    restored: Callable[[Any], Any] | None = None
    """Reads a value from SQLite, as `read` does from JSON; None where both have the same form."""


def rfc3339(unix_ns: int) -> str:
    """Return a time as in RFC 3339, in UTC, to the nanosecond."""
    seconds, ns = divmod(unix_ns, NS)
    return f"{utc_second(seconds)}.{ns:09}Z"


def _quoted_moment(unix_ns: int) -> str:
    seconds, ns = divmod(unix_ns, NS)
    return f'"{utc_second(seconds)}.{ns:09}Z"'


@lru_cache(_CACHED)
def _quoted(raw: bytes) -> str:
    return json.dumps(comm_text(raw))


@lru_cache(_CACHED)
def _quoted_or_null(raw: bytes) -> str:
    return json.dumps(comm_text(raw)) if raw else "null"


@lru_cache(_CACHED)
def _quoted_label_or_null(text: str) -> str:
    return json.dumps(text) if text else "null"


@lru_cache(_CACHED)
def _quoted_names_or_null(names: tuple[bytes, ...]) -> str:
    return f"[{','.join(map(_quoted, names))}]" if names else "null"


@lru_cache
def _quoted_word(text: str) -> str:
    return f'"{text}"'


def _exit_code(outcome: Outcome, code: int | None) -> int | None:
    return code if outcome is _OK or outcome is _ERROR else None


def _exit_code_text(outcome: Outcome, code: int | None) -> str:
    return "null" if code is None or outcome is _SIGNAL or outcome is _UNKNOWN else f"{code}"


def _signal(outcome: Outcome, code: int | None) -> str | None:
    return shown.signal_name(code) if outcome is _SIGNAL and code is not None else None


def _signal_text(outcome: Outcome, code: int | None) -> str:
    return f'"{shown.signal_name(code)}"' if outcome is _SIGNAL and code is not None else "null"


def whole(number: object) -> int:
    """Read a whole number from JSON."""
    if not isinstance(number, int) or not 0 <= number < 2**63:
        raise ValueError(number)
    return number


def whole_or_none(number: object) -> int | None:
    return None if number is None else whole(number)


def signal_number(name: str | None) -> int | None:
    """Read the name of a signal."""
    return None if name is None else whole(_SIGNAL_NUMBERS.get(name) or int(name.removeprefix("SIG")))  # SIG35 has no name


@lru_cache(_CACHED)
def raw_name(text: str) -> bytes:
    """Undo `comm_text`."""
    return _ESCAPE.sub(_unescaped, text).encode("utf-8", "surrogateescape")


def _unescaped(match: re.Match[str]) -> str:
    kind, digits = match[0][1], match[0][2:]
    if kind == "\\":
        return "\\"
    code = int(digits, 16)
    return chr(0xDC00 + code) if kind == "x" and code >= 0x80 else chr(code)  # surrogateescape's form of a byte


def _read_label(text: str | None) -> str:
    text = text or ""
    if not text.isprintable():
        raise ValueError(text)
    return text


def _read_moment(text: str) -> int:
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return round(datetime.fromisoformat(f"{match[1]}+00:00").timestamp()) * NS + int(match[2])


def _read_seconds(seconds: float | None) -> int | None:
    return None if seconds is None else whole(round(float(seconds) * NS))


def _read_names(names: list[str] | None) -> tuple[bytes, ...]:
    if names is not None and (not isinstance(names, list) or len(names) > _MOST_ANCESTORS):
        raise ValueError(names)
    return tuple(map(raw_name, names or ()))


def _read_truth(value: object) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise ValueError(value)
    return value


def _texts_or_none(arguments: bytes | None) -> list[str] | None:
    return None if arguments is None else [comm_text(word) for word in arguments.split(b"\0")]


def _read_words(texts: list[str] | None) -> bytes | None:
    if texts is not None and not isinstance(texts, list):
        raise ValueError(texts)
    return None if texts is None else b"\0".join(map(raw_name, texts))


def _restored_names(text: str) -> tuple[bytes, ...]:
    return _read_names(text.split(";")) if text else ()


def _restored_truth(value: int | None) -> bool | None:
    return {None: None, 0: False, 1: True}[value]


def _restored_words(text: str | None) -> bytes | None:
    return None if text is None else b"\0".join(map(_unquoted, _SHELL_WORD.findall(text)))


def _unquoted(word: str) -> bytes:
    if word.startswith("$'"):
        return raw_name(word[2:-1].replace(r"\'", "'"))
    return "".join(shlex.split(word)).encode("utf-8", "surrogateescape")


def _signal_of_event(kind: EventKind, outcome: Outcome | None, code: int | None) -> str | None:
    killed = kind is EventKind.SIGNAL or outcome is _SIGNAL
    return shown.signal_name(code) if killed and code is not None else None


STARTED = JsonForm(
    "RFC 3339, UTC, to the nanosecond",
    lambda exited, runtime: rfc3339(exited - runtime),
    lambda exited, runtime: _quoted_moment(exited - runtime),
)
EXIT_CODE = JsonForm("number", _exit_code, _exit_code_text)
SIGNAL = JsonForm("text", _signal, _signal_text)
SIGNAL_OF_EVENT = JsonForm("text", _signal_of_event, lambda *fate: json.dumps(_signal_of_event(*fate)))

MOMENT = Kind(
    about="Unix time in ns",
    json=JsonForm("RFC 3339, UTC, to the nanosecond", rfc3339, _quoted_moment),
    read=_read_moment,
    column="INTEGER",
    stored=None,
    snoop=shown.local_time,
    page=shown.utc_time,
    restored=whole,
)
SPAN = Kind(
    about="ns",
    json=JsonForm("seconds", lambda ns: None if ns is None else ns / NS, lambda ns: "null" if ns is None else f"{ns / NS}"),
    read=_read_seconds,
    column="INTEGER",
    stored=None,
    snoop=shown.span,
    page=shown.milliseconds,
    restored=whole_or_none,
)
NUMBER = Kind(
    about="",
    json=JsonForm("number", lambda value: value, lambda value: "null" if value is None else f"{value}"),
    read=whole_or_none,
    column="INTEGER",
    stored=None,
    snoop=shown.number,
    page=shown.number_or_question,
)
NUMBER_IF_NOT_0 = Kind(
    about="0: not known",
    json=JsonForm("number", lambda pid: pid or None, lambda pid: f"{pid or 'null'}"),
    read=lambda pid: whole(pid or 0),
    column="INTEGER",
    stored=None,
    snoop=lambda pid: shown.number(pid or None),
    page=lambda pid: shown.number_or_question(pid or None),
)
NAME = Kind(
    about="",
    json=JsonForm("text", shown.name, _quoted),
    read=raw_name,
    column="TEXT",
    stored=shown.name,
    snoop=shown.word,
    page=shown.name,
)
NAME_IF_KNOWN = Kind(
    about="empty: not known",
    json=JsonForm("text", lambda raw: shown.name(raw) or None, _quoted_or_null),
    read=lambda text: raw_name(text or ""),
    column="TEXT",
    stored=shown.name,
    snoop=shown.word,
    page=shown.name_or_question,
)
LABEL_IF_KNOWN = Kind(
    about="escaped; empty: none, or not known",
    json=JsonForm("text", lambda text: text or None, _quoted_label_or_null),
    read=_read_label,
    column="TEXT",
    stored=None,
    snoop=shown.label,
    page=lambda text: text or shown.QUESTION,
)
LINEAGE = Kind(
    about="the oldest first; empty: not known",
    json=JsonForm("list of text", lambda names: list(map(shown.name, names)) or None, _quoted_names_or_null),
    read=_read_names,
    column="TEXT",
    stored=shown.stack,
    snoop=shown.stack,
    page=shown.stack,
    restored=_restored_names,
)
YES_OR_NO = Kind(
    about="",
    json=JsonForm("true or false", lambda value: value, lambda value: "null" if value is None else "true" if value else "false"),
    read=_read_truth,
    column="INTEGER",
    stored=lambda value: None if value is None else int(value),
    snoop=shown.yes_or_no,
    page=lambda value: shown.yes_or_no(value, shown.QUESTION),
    restored=_restored_truth,
)
ARGUMENTS = Kind(
    about="separated by zero bytes; None: not known, or not asked for",
    json=JsonForm("list of texts", _texts_or_none, lambda arguments: json.dumps(_texts_or_none(arguments))),
    read=_read_words,
    column="TEXT",
    stored=lambda arguments: None if arguments is None else shown.command_line(arguments, cut=False),
    snoop=lambda arguments: shown.command_line(arguments, cut=False),
    page=lambda arguments: shown.QUESTION if arguments is None else shown.command_line(arguments, cut=False),
    restored=_restored_words,
)


def _word(of: type[StrEnum], about: str) -> Kind:
    """Return the kind of a member of an enumeration; None if it may be missing."""
    return Kind(
        about="",
        json=JsonForm(about, lambda value: value and str(value), lambda value: "null" if value is None else _quoted_word(value)),
        read=of,
        column="TEXT",
        stored=str,
        snoop=str,
        page=str,
    )


def _words(of: type[StrEnum]) -> str:
    return ", ".join(f"`{each}`" for each in of)


OUTCOME = _word(Outcome, _words(Outcome))
MODE = _word(Mode, "name of a mode")
EVENT_KIND = _word(EventKind, _words(EventKind))
