"""Plans the handlers' child from the configuration: its handlers and sinks, their modules, and its user."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from exporter.config.options import Filter, HandlerConfig, Sinks
from exporter.config.problems import ConfigError
from exporter.handlers import loading
from exporter.handlers.headers_file import secret_refusal
from exporter.handlers.trust import refusal
from exporter.records.subscriptions import unknown_keys

NOBODY = 65534
_SDK = "opentelemetry-exporter-otlp-proto-http>=1.45,<2"
"""The extra `otlp` of the package."""
_SINK_TIMEOUT_SECONDS = 60.0
"""A disk may be slow."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One handler, or a sink."""

    label: str
    target: str
    path: tuple[str, ...] = ()
    filter: Filter = field(default_factory=Filter)
    options: dict[str, Any] = field(default_factory=dict)
    timeout_seconds: float = _SINK_TIMEOUT_SECONDS
    at_once: bool = False
    events: tuple[str, ...] = ()
    records: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    handlers: tuple[Planned, ...]
    """Handlers before sinks: users may wait for a handler, but not for a sink."""
    live: bool
    """Whether handlers get records, not only sinks."""
    user: int | None = None
    """User that the child switches to, together with `group`; None to keep ours."""
    group: int | None = None
    owners: tuple[int, ...] = ()
    """Users whose files are trusted, besides root."""

    @property
    def writer(self) -> tuple[int, int] | None:
        """User and group that own the files of sinks; None if these are ours."""
        return None if self.user is None or self.group is None else (self.user, self.group)

    def spec(self) -> dict[str, Any]:
        """Return the plan as plain values, for the child."""
        return asdict(self)


def make(handlers: Sequence[HandlerConfig], sinks: Sinks, config_file: str | None = None) -> Plan | None:
    """Return a plan, checked as far as possible without running user code; None if nothing is configured. Raises `ConfigError`."""
    planned = _handlers(handlers)
    stores = list(_sinks(sinks))
    if not planned and not stores:
        return None
    me = os.geteuid()
    owners = (me,)
    problems: list[str] = []
    if planned and config_file is not None and (reason := refusal(os.path.abspath(config_file), owners)):  # noqa: PTH100 - keeps links
        problems.append(f"handlers: refusing to load the handlers named in {config_file}: {reason}")
    problems += (
        f"handlers[{number}].records: false, but it has no events either"
        for number, each in enumerate(planned)
        if not each.records and not each.events
    )
    problems += (
        f"handlers[{number}].filter.{key}: events do not have it; use another handler for events"
        for number, each in enumerate(planned)
        if each.events
        for key in unknown_keys(each.filter)
    )
    for number, each in enumerate(planned):
        try:
            loading.check(each.target, each.path, owners)
        except loading.LoadError as unloadable:
            problems.append(f"handlers[{number}]: {unloadable}")
    problems += _missing(stores)
    user, group = None, None
    if me == 0:
        try:
            user, group = _user_of(stores)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return Plan((*planned, *stores), any(each.records for each in planned), user, group, owners)


def _handlers(handlers: Sequence[HandlerConfig]) -> list[Planned]:
    names: list[str] = []
    planned = []
    for each in handlers:
        names.append(each.name)
        label = each.name if names.count(each.name) == 1 else f"{each.name}#{names.count(each.name)}"
        planned.append(
            Planned(label, each.name, each.path, each.filter, each.options, each.timeout_seconds, each.at_once, each.events, each.records)
        )
    return planned


def _sinks(sinks: Sinks) -> Iterable[Planned]:
    jsonl, sqlite, otlp = sinks.jsonl, sinks.sqlite, sinks.otlp
    if jsonl.path:
        options = {key: getattr(jsonl, key) for key in ("path", "max_bytes", "max_age_seconds", "keep")}
        yield Planned("jsonl", f"{loading.BUILT_IN}jsonl:Jsonl", filter=jsonl.filter, options=options)
    if sqlite.path:
        options = {key: getattr(sqlite, key) for key in ("path", "max_bytes", "max_age_seconds")}
        yield Planned("sqlite", f"{loading.BUILT_IN}sqlite:Sqlite", filter=sqlite.filter, options=options)
    if otlp.endpoint:
        options = {key: getattr(otlp, key) for key in ("endpoint", "headers_file", "ca_file", "compression", "timeout_seconds")}
        yield Planned("otlp", f"{loading.BUILT_IN}otlp:Otlp", filter=otlp.filter, options=options)


def _missing(sinks: Sequence[Planned]) -> Iterable[str]:
    """Yield what has to be installed for the sinks. Imports nothing but empty packages: it runs in the serving process."""
    if any(sink.label == "otlp" for sink in sinks):
        try:
            found = importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http")
        except ModuleNotFoundError:
            found = None
        if found is None:
            yield f"sinks.otlp: the OpenTelemetry SDK is not installed for {sys.executable}: pip install '{_SDK}'"


def _places(sinks: Iterable[Planned]) -> Iterator[tuple[str, Path, str, Callable[[str, tuple[int, ...]], str | None]]]:
    """Yield what the user of the sinks must own: key, path, what it is, and a check of its mode and of the directories above."""
    for sink in sinks:
        if "path" in sink.options:
            yield f"sinks.{sink.label}.path", Path(sink.options["path"]).parent, "directory", refusal
        if headers := sink.options.get("headers_file"):
            yield f"sinks.{sink.label}.headers_file", Path(headers), "file", secret_refusal


def _user_of(sinks: list[Planned]) -> tuple[int, int]:
    """Return the child's user and group when started as root: the owner of the sinks' directory or file, or nobody without one."""
    owners: dict[int, str] = {}
    group = NOBODY
    problems = []
    for key, place, what, check in _places(sinks):
        try:
            found = place.stat()
        except OSError as error:
            problems.append(f"{key}: cannot use the {what} {place}: {(error.strerror or str(error)).lower()}")
            continue
        if found.st_uid == 0:
            problems.append(f"{key}: {place} belongs to root, and sinks do not run as root: use a {what} that belongs to another user")
        elif reason := check(str(place), (found.st_uid,)):
            problems.append(f"{key}: refusing to use it: {reason}")
        owners[found.st_uid] = str(place)
        group = found.st_gid or NOBODY
    if len(owners) > 1:
        problems.append(f"sinks: {' and '.join(owners.values())} belong to different users, but all sinks run as one user")
    if problems:
        raise ConfigError(*problems)
    user = next(iter(owners), NOBODY)
    with contextlib.suppress(KeyError):  # a user that has only a number
        group = pwd.getpwuid(user).pw_gid or group
    return user, group
