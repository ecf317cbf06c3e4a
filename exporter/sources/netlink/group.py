"""One process, as the proc connector and taskstats report it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from exporter.kernel.taskstats import Stats
from exporter.model import NS
from exporter.model.arguments import Arguments

SAME_START_NS = NS // 10
"""Starts of one process, from two clocks, differ by less."""


@dataclass(slots=True, eq=False)
class Group:
    """A process that has not exited, as far as known."""

    start_ns: int
    parent: int
    comm: bytes | None
    """None if unknown: it is read from `/proc` when needed, or reported at the exit."""
    live: int = 1
    found: bool = False
    lost: bool = False
    """Whether its fork event was lost. This is already counted."""
    threaded: bool = False
    cpu_us: int = 0
    cpu_pending: bool = False
    core_dump: int = 0
    """The core dump bit of the status. Only the thread that dumped has it, and other threads may exit after it."""
    last: Stats | None = None
    """The taskstats message of the last thread."""
    cgroup: bytes = b""
    """Empty if unknown."""
    cgroup_at_ns: int = 0
    """When it was read for this process; 0 if it is that of the parent at the fork, or unknown."""
    execed: bool = False
    arguments: Arguments | None = None
    """Those of the last exec, if they were read in time."""


class Exit(NamedTuple):
    """An exit event of a thread."""

    at_ns: int
    code: int
    parent: int
    """0 if the process is already reaped, or the kernel does not report it."""
