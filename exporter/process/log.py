"""Writes log lines to standard error, as logfmt or JSON. All values are escaped, so no value can forge a line."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

from exporter.model import comm_text
from exporter.process.log_writer import LogWriter

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_NAMES = {logging.WARNING: "warn", logging.CRITICAL: "error"}
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def fields(**pairs: object) -> dict[str, dict[str, object]]:
    """Return fields for a log line: `logger.info("mode changed", extra=fields(mode="scan"))`."""
    return {"fields": pairs}


def setup(level: str = "info", form: str = "logfmt", stream: TextIO | None = None) -> None:
    """Send the lines of all loggers to standard error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Json() if form == "json" else Logfmt())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    logging.logThreads = False  # their names are not shown, and asking for them would keep an object for each thread
    logging.raiseExceptions = False  # no tracebacks if the log cannot be written


def in_background() -> None:
    """Let a thread write the lines from now on. Call it after the privileges are dropped, which has to be done before the first thread."""
    root = logging.getLogger()
    root.handlers[:] = [LogWriter(2, root.handlers[0].formatter)]


def finish() -> None:
    """Wait briefly for the last lines. Call it at the end of the process."""
    for writer in _writers():
        writer.finish()


def dropped_lines() -> int:
    """Return the number of lines that were dropped so far, because nobody read those before."""
    return sum(writer.dropped for writer in _writers())


def _writers() -> list[LogWriter]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, LogWriter)]


class Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_pairs(record), default=_plain)


class Logfmt(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{_key(key)}={_value(value)}" for key, value in _pairs(record).items())


def _pairs(record: logging.LogRecord) -> dict[str, object]:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    pairs: dict[str, object] = {
        "ts": f"{seconds}.{int(record.msecs):03}Z",
        "level": _NAMES.get(record.levelno, record.levelname.lower()),
        "msg": record.getMessage(),
    }
    extra: dict[str, Any] = getattr(record, "fields", {})
    pairs |= {key: value for key, value in extra.items() if key not in pairs}
    if record.exc_info and record.exc_info[1]:
        pairs["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        pairs["traceback"] = logging.Formatter().formatException(record.exc_info)
    return pairs


def _plain(value: object) -> str:
    return comm_text(value) if isinstance(value, bytes) else str(value)


def _key(key: str) -> str:
    return "".join(char if char.isascii() and (char.isalnum() or char in "_.-") else "_" for char in key)


def _value(value: object) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    text = _plain(value)
    if text and all(char.isascii() and (char.isalnum() or char in "_.-:/+@%,[]") for char in text):
        return text
    return f'"{"".join(_escaped(char) for char in text)}"'


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    return char if char.isprintable() else json.dumps(char)[1:-1]
