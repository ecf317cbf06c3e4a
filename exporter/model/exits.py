"""The exit of one process, as a source in user space knows it."""

from __future__ import annotations

from typing import NamedTuple

from exporter.model import Outcome
from exporter.model.arguments import Arguments
from exporter.model.origins import UNKNOWN, Lineage


class ProcessExit(NamedTuple):
    """What counts and records are made of."""

    start_ns: int
    """Of the monotonic clock; two modes may differ by some milliseconds."""
    runtime_ns: int
    comm: bytes
    parent_comm: bytes
    outcome: Outcome = Outcome.UNKNOWN
    cpu_ns: int | None = None
    """None where it is not known."""
    core_dump: bool = False
    sigkill: bool = False
    ppid: int = 0
    uid: int | None = None
    code: int | None = None
    """As `Record.code`. It and `ppid` are for records only."""
    cgroup: bytes = b""
    spawner: bytes = UNKNOWN
    """As in `Origin`."""
    arguments: Arguments | None = None
    """None where they are not known, or not asked for."""
    lineage: Lineage = ()

    @property
    def at_ns(self) -> int:
        """The moment of the exit."""
        return self.start_ns + self.runtime_ns
