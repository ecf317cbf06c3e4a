"""A record as JSON: one form for the API, the stream, `snoop --json`, the JSONL sink and handlers. Names are escaped by `comm_text`."""

from __future__ import annotations

import json
import time
from functools import lru_cache
from typing import Any

from exporter.model import NS, SIGNALS, Outcome, comm_text
from exporter.records.record import Record

Json = dict[str, Any]

_OK, _ERROR, _SIGNAL = Outcome.OK, Outcome.ERROR, Outcome.SIGNAL
_CACHED = 4096
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)

name = lru_cache(_CACHED)(comm_text)
"""`comm_text`, for names that come again and again."""


def as_json(record: Record) -> Json:
    """All that is known of one short process; null is what is not."""
    return {
        "ended_at": rfc3339(record.ended_ns),
        "started_at": rfc3339(record.ended_ns - record.runtime_ns),
        "runtime_seconds": record.runtime_ns / NS,
        "pid": record.pid,
        "ppid": record.ppid or None,
        "uid": record.uid,
        "comm": name(record.comm),
        "parent_comm": name(record.parent_comm) or None,
        "exe": name(record.exe) or None,
        "outcome": record.outcome.value,
        "exit_code": record.code if record.outcome in (_OK, _ERROR) else None,
        "signal": _signal(record.code) if record.outcome is _SIGNAL and record.code is not None else None,
        "cpu_seconds": None if record.cpu_ns is None else record.cpu_ns / NS,
        "cgroup": name(record.cgroup) or None,
        "mode": record.mode.value,
    }


def line(record: Record) -> str:
    """`as_json` as JSON text, faster than by way of it."""
    r = record
    killed = r.outcome is _SIGNAL and r.code is not None
    code = r.code if r.code is not None and r.outcome in (_OK, _ERROR) else "null"
    return (
        f'{{"ended_at":"{rfc3339(r.ended_ns)}","started_at":"{rfc3339(r.ended_ns - r.runtime_ns)}","runtime_seconds":{r.runtime_ns / NS},'
        f'"pid":{r.pid},"ppid":{r.ppid or "null"},"uid":{"null" if r.uid is None else r.uid},'
        f'"comm":{_quoted(r.comm)},"parent_comm":{_quoted_or_null(r.parent_comm)},"exe":{_quoted_or_null(r.exe)},'
        f'"outcome":"{r.outcome}","exit_code":{code},"signal":{json.dumps(_signal(r.code)) if killed else "null"},'
        f'"cpu_seconds":{"null" if r.cpu_ns is None else r.cpu_ns / NS},"cgroup":{_quoted_or_null(r.cgroup)},"mode":"{r.mode.value}"}}'
    )


def encode(value: Json) -> str:
    """Spell it as one line of ASCII."""
    return _ENCODER.encode(value)


def rfc3339(unix_ns: int) -> str:
    """Spell a time in UTC, to the nanosecond."""
    seconds, ns = divmod(unix_ns, NS)
    return f"{_second(seconds)}.{ns:09}Z"


@lru_cache(16)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _signal(number: int | None) -> str:
    return SIGNALS.get(number or 0, f"SIG{number}")


@lru_cache(_CACHED)
def _quoted(raw: bytes) -> str:
    return json.dumps(comm_text(raw))


def _quoted_or_null(raw: bytes) -> str:
    return _quoted(raw) if raw else "null"
