"""Interfaces of the loaders. `Direct` uses the privileges of this process, `Broker` those of a child that keeps them.

The loader of one mode is a module with two functions: `load`, and `refusal`, a cheap check. The module of each mode is fixed when a loader
is created.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from exporter.kernel.attached import Handover
from exporter.model import Mode, RuntimeScale
from exporter.model.events import WantedEvents
from exporter.model.failures import FailedStarts
from exporter.model.owner import ContainerName

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """The parameters of loading, fixed at start."""

    scale: RuntimeScale
    procfs: str
    interpreter: str
    """Path of a Python interpreter that has bcc; if empty, one is searched for."""
    by_origin: bool
    """Whether the programs count for whom processes ran."""
    arguments: bool
    """Whether they keep the arguments of processes, for records."""
    comms: int
    """Most comms that have series, and so a row in the maps of the programs."""
    failed_starts: FailedStarts
    events: WantedEvents
    modules: Mapping[Mode, str]
    """Name of the module that loads each mode. The other modes need no loader."""

    def to_json(self) -> str:
        """Return the settings as text for another process."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the settings that `to_json` wrote."""
        fields = json.loads(text)
        scale = fields.pop("scale")
        fields["events"] = WantedEvents.from_json(**fields["events"])
        fields["failed_starts"] = FailedStarts(fields["failed_starts"])
        return cls(RuntimeScale(**scale | {"bounds_ns": tuple(scale["bounds_ns"])}), **fields)


class ModeLoader(Protocol):
    """The interface of a module that loads one mode."""

    def refusal(self, settings: Settings) -> str | None:
        """Return one sentence if a cheap check shows that loading would fail, else None."""

    def load(self, settings: Settings, on_log: Callable[[str], None]) -> Handover:
        """Load and attach programs in standby. Raises `ModeUnavailable`. `on_log` receives lines for the log."""


class Loader(Protocol):
    """The interface that the application hands to supervision. `load` and `probe` raise `ModeUnavailable`."""

    def load(self, mode: Mode) -> Handover:
        """Return the programs or sockets of the mode, as open descriptors."""

    def probe(self, mode: Mode) -> None:
        """Raise if a cheap check shows that `load` would fail."""

    def container_names(self, ids: Sequence[str]) -> Mapping[str, ContainerName]:
        """Return the names of containers that their runtimes keep, by id; of at most 32, and only those that are known."""


def log_line(line: str) -> None:
    """Log a line of a loader's child. Lines that begin with `note: ` are for the operator."""
    note = line.removeprefix("note: ")
    logger.log(logging.DEBUG if note == line else logging.WARNING, "%s", note)
