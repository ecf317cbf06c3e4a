"""The record of one short process."""

from __future__ import annotations

from typing import NamedTuple

from exporter.model import Mode, Outcome


class Record(NamedTuple):
    """One short process, as a person or a program may want to look at it. Never its arguments, never its environment."""

    ended_ns: int
    """Unix time."""
    runtime_ns: int
    pid: int
    ppid: int
    """The parent's at the end; 0 where it is not known."""
    uid: int | None
    """The real user's; None where it is not known."""
    comm: bytes
    parent_comm: bytes
    exe: bytes
    """Path that the last exec named, at most 256 bytes; empty where there was none, or where it is not known."""
    outcome: Outcome
    code: int | None
    """The exit code, or the number of the signal, as the outcome tells; None where it is not known."""
    cpu_ns: int | None
    """None where it is not known yet."""
    cgroup: bytes
    """Path in the cgroup 2 hierarchy; empty where it is not known."""
    mode: Mode
    """Which one saw it."""
