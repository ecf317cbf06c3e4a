"""Loaders get from the kernel what takes privileges: `Direct` with those of this process, `Broker` with those of a process that keeps them.

The loader of one mode is a module with two functions: `refusal` tells cheaply why the mode can't run, `load` does the work. Which mode has
which module is fixed when a loader is made.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from exporter.kernel.attached import Handover
from exporter.model import Mode, RuntimeScale

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """All that loading depends on; fixed at start."""

    scale: RuntimeScale
    procfs: str
    interpreter: str
    """A Python interpreter that has bcc; empty: look for one."""
    modules: Mapping[Mode, str]
    """Name of the module that loads each mode; a mode that is not in it needs no loader."""

    def to_json(self) -> str:
        """Return all of it as text for another process."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return what `to_json` was called on."""
        fields = json.loads(text)
        scale = fields.pop("scale")
        return cls(RuntimeScale(**scale | {"bounds_ns": tuple(scale["bounds_ns"])}), **fields)


class ModeLoader(Protocol):
    """The module that loads one mode."""

    def refusal(self, settings: Settings) -> str | None:
        """Return in a sentence why loading is sure to fail, or None; cheap."""

    def load(self, settings: Settings, on_log: Callable[[str], None]) -> Handover:
        """Load and attach programs that count nothing yet; raises `ModeUnavailable`. `on_log` takes lines for the log."""


class Loader(Protocol):
    """What supervision is handed by the application. Both methods raise `ModeUnavailable`."""

    def load(self, mode: Mode) -> Handover:
        """Get from the kernel what the mode needs, as open descriptors."""

    def probe(self, mode: Mode) -> None:
        """Raise where `load` is sure to fail, as far as a cheap check can tell."""


def log_line(line: str) -> None:
    """Log a line of a loader's child; those that begin with `note: ` are for the operator."""
    note = line.removeprefix("note: ")
    logger.log(logging.DEBUG if note == line else logging.WARNING, "%s", note)
