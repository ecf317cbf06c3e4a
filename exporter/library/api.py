"""The functions of the Python API; `import exporter` has them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Literal

from exporter.config import loading
from exporter.config.options import Config, Filter
from exporter.config.problems import ConfigError, InvalidValue
from exporter.config.sections import section
from exporter.library.following import Following
from exporter.library.history import FOREVER_NS, History, Unreadable
from exporter.library.host import Host
from exporter.library.processes import Ended, Events, Processes, Totals
from exporter.model import Mode, ModeUnavailable, Outcome, comm_text
from exporter.model.events import EventKind
from exporter.records.encoding import as_json
from exporter.records.event import Event
from exporter.records.record import Record
from exporter.records.subscriptions import unknown_keys

__all__ = [
    "Ended",
    "Event",
    "EventKind",
    "Events",
    "Filter",
    "History",
    "Mode",
    "ModeUnavailable",
    "Outcome",
    "Processes",
    "Record",
    "Totals",
    "Unreadable",
    "as_json",
    "comm_text",
    "follow",
    "history",
    "watch",
]

_KEPT = 1000


def watch(  # noqa: PLR0913 - all are optional
    mode: Mode | Literal["auto", "ebpf_core", "ebpf_bcc", "netlink", "fast_scan", "scan"] = "auto",
    *,
    only: Filter | None = None,
    recent: int = _KEPT,
    short_threshold_seconds: float = 1.0,
    arguments: Literal["off", "names", "full"] = "off",
    events: Sequence[EventKind | Literal["fork", "exec", "exit", "signal"]] = (),
) -> Processes:
    """Return the short processes of this host, observed by this process in a `with` statement.

    `mode` is the one to use; `auto` picks the best that works, falls back when it fails, and retries better ones. Only records that match
    `only` are kept and iterated over. `recent` is how many of the last are kept for `Processes.recent`. A process is short if its runtime
    is below `short_threshold_seconds`. `arguments` is what records tell of arguments: see `records.arguments` in docs/configuration.md.
    `events` are the kinds of events that `Processes.events` yields, of all processes that match `only`. Raises `ValueError` for values
    that are not allowed; entering the context raises `ModeUnavailable` if no mode works, or if `events` are wanted and cannot be had.
    """
    values = {
        "detection.mode": str(mode),
        "detection.short_threshold_seconds": short_threshold_seconds,
        "records.arguments": arguments,
    }
    config = Config()
    try:
        for key, value in values.items():
            config = loading.override(config, key, value, key.rpartition(".")[2])
    except ConfigError as error:
        raise ValueError(str(error)) from None
    wanted = _checked(only)
    if events and wanted is not None and (unknown := unknown_keys(wanted)):
        raise ValueError(f"only: events do not have {', '.join(unknown)}")
    return Host(config, wanted, recent, [EventKind(each) for each in events])


def follow(url: str, *, only: Filter | None = None, recent: int = _KEPT, metrics_path: str = "/metrics") -> Processes:
    """Return the short processes that the exporter at `url` observes, such as `http://localhost:10199`. It needs no privilege.

    The exporter sends at most about 400 records a second; `Processes.dropped` counts those that it left out. `Processes.counts` reads its
    metrics, at `metrics_path`. Entering the context raises `Ended` if the exporter cannot be reached, or rejects the request.
    """
    return Following(url, _checked(only), recent, metrics_path)


def history(path: str | os.PathLike[str], since: datetime | None = None, until: datetime | None = None) -> History:
    """Return the records in the file of a sink, SQLite or JSON lines, of processes that exited at `since` or later and before `until`.

    Times without a time zone are local. Iterating raises `Unreadable` if the file cannot be read.
    """
    return History(path, 0 if since is None else _ns(since), FOREVER_NS if until is None else _ns(until))


def _ns(when: datetime) -> int:
    return round(when.timestamp() * 1_000_000) * 1000


def _checked(only: Filter | None) -> Filter | None:
    if only is None:
        return None
    values = ((each.name, getattr(only, each.name)) for each in fields(only))
    try:
        checked: Filter = section(Filter).read({name: _as_in_a_file(value) for name, value in values})
    except InvalidValue as invalid:
        raise ValueError(str(invalid)) from None
    return checked


def _as_in_a_file(value: Any) -> Any:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else value
