"""What the configuration asks of the handlers' child: which handlers, where from, as which user."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from exporter.config.options import Config, ConfigError, Filter
from exporter.handlers import loading
from exporter.handlers.trust import refusal

NOBODY = 65534
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


@dataclass(frozen=True, slots=True)
class Plan:
    handlers: tuple[Planned, ...]
    """Those of the user first, for somebody may wait for them; nobody waits for a sink."""
    live: bool
    """Whether there are any but sinks."""
    user: int | None = None
    """Whom the child becomes, with `group`; None to stay who we are."""
    group: int | None = None
    owners: tuple[int, ...] = ()
    """Whose files are trusted, besides root's."""

    def spec(self) -> dict[str, Any]:
        """As plain values, for the child."""
        return asdict(self)


def make(config: Config, config_file: str | None = None) -> Plan | None:
    """Plan, and check what can be checked without running anything; None where nothing is configured. Raises `ConfigError`."""
    sinks = list(_sinks(config))
    names: list[str] = []
    handlers = []
    for each in config.handlers:
        names.append(each.name)
        label = each.name if names.count(each.name) == 1 else f"{each.name}#{names.count(each.name)}"
        handlers.append(Planned(label, each.name, each.path, each.filter, each.options, each.timeout_seconds))
    if not handlers and not sinks:
        return None
    me = os.geteuid()
    user, group = _user_of(sinks) if me == 0 else (None, None)
    owners = (me,)
    if handlers and config_file is not None and (reason := refusal(os.path.abspath(config_file), owners)):  # noqa: PTH100 - keeps links
        raise ConfigError(f"{config_file}: handlers: it is not trusted to name code: {reason}")
    for number, planned in enumerate(handlers):
        try:
            loading.check(planned.target, planned.path, owners)
        except loading.LoadError as unloadable:
            raise ConfigError(f"handlers[{number}]: {unloadable}") from None
    return Plan((*handlers, *sinks), bool(handlers), user, group, owners)


def _sinks(config: Config) -> Iterable[Planned]:
    jsonl, sqlite = config.sinks.jsonl, config.sinks.sqlite
    if jsonl.path:
        options = {key: getattr(jsonl, key) for key in ("path", "max_bytes", "max_age_seconds", "keep")}
        yield Planned("jsonl", f"{loading.BUILT_IN}jsonl:Jsonl", filter=jsonl.filter, options=options)
    if sqlite.path:
        options = {key: getattr(sqlite, key) for key in ("path", "max_bytes", "max_age_seconds")}
        yield Planned("sqlite", f"{loading.BUILT_IN}sqlite:Sqlite", filter=sqlite.filter, options=options)


def _user_of(sinks: list[Planned]) -> tuple[int, int]:
    """Whom to become, as root: the owner of the sinks' directory, which is then the one who can write there; nobody without sinks."""
    owners: dict[int, str] = {}
    group = NOBODY
    for sink in sinks:
        folder, key = Path(sink.options["path"]).parent, f"sinks.{sink.label}.path"
        try:
            found = folder.stat()
        except OSError as error:
            raise ConfigError(f"{key}: directory {folder}: {(error.strerror or str(error)).lower()}") from None
        if found.st_uid == 0:
            raise ConfigError(
                f"{key}: {folder} belongs to root, and no sink runs as root; give it a directory that belongs to another user"
            )
        if reason := refusal(str(folder), (found.st_uid,)):
            raise ConfigError(f"{key}: {reason}")
        owners[found.st_uid] = str(folder)
        group = found.st_gid or NOBODY
    if len(owners) > 1:
        raise ConfigError(f"sinks: {' and '.join(owners.values())} belong to different users, and all sinks run as one")
    user = next(iter(owners), NOBODY)
    with contextlib.suppress(KeyError):  # a user that has only a number
        group = pwd.getpwuid(user).pw_gid or group
    return user, group
