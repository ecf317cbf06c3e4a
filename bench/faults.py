"""Faults that `make soak` does to a running exporter. Each is a context: it begins, lasts as long as the caller lets it, and is mended."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.otlp_receiver import Receiver
from bench.processes import family


@dataclass(frozen=True, slots=True)
class Victim:
    """A running exporter, the directory of its sinks, which is a small file system of its own, and the receiver of its records."""

    pid: int
    sinks: Path
    receiver: Receiver
    chance: random.Random

    @property
    def database(self) -> Path:
        return self.sinks / "records.db"


Fault = Callable[[Victim], AbstractContextManager[None]]
FAULTS: dict[str, Fault] = {}
"""By name. After each of them the same exporter goes on."""


def _fault(begin_and_end: Callable[[Victim], Iterator[None]]) -> Fault:
    fault = contextmanager(begin_and_end)
    FAULTS[begin_and_end.__name__.replace("_", " ")] = fault
    return fault


@_fault
def broker_killed(victim: Victim) -> Iterator[None]:
    _signal(victim, "broker", signal.SIGKILL)
    yield


@_fault
def handlers_child_killed(victim: Victim) -> Iterator[None]:
    _signal(victim, "handlers", signal.SIGKILL)
    yield


@_fault
def exporter_stopped(victim: Victim) -> Iterator[None]:
    os.kill(victim.pid, signal.SIGSTOP)
    yield
    os.kill(victim.pid, signal.SIGCONT)


@_fault
def broker_stopped(victim: Victim) -> Iterator[None]:
    _signal(victim, "broker", signal.SIGSTOP)
    yield
    _signal(victim, "broker", signal.SIGCONT)


@_fault
def handlers_child_stopped(victim: Victim) -> Iterator[None]:
    _signal(victim, "handlers", signal.SIGSTOP)
    yield
    _signal(victim, "handlers", signal.SIGCONT)


@_fault
def everything_stopped(victim: Victim) -> Iterator[None]:
    frozen = [*family(victim.pid).values(), psutil.Process(victim.pid)]
    for each in frozen:
        each.suspend()
    yield
    for each in frozen:
        each.resume()


@_fault
def disk_full(victim: Victim) -> Iterator[None]:
    filler = victim.sinks / "filler"
    fd = os.open(filler, os.O_CREAT | os.O_WRONLY)
    size, step = 0, 16 << 20
    while step >= os.sysconf("SC_PAGE_SIZE"):
        try:
            os.posix_fallocate(fd, size, step)
            size += step
        except OSError:
            step //= 2
    os.close(fd)
    yield
    filler.unlink()


@_fault
def database_locked(victim: Victim) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(victim.database, timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@_fault
def database_corrupted(victim: Victim) -> Iterator[None]:
    with victim.database.open("r+b") as file:
        file.write(victim.chance.randbytes(victim.database.stat().st_size // 2))
    yield
    _delete(victim.database)  # as docs/handlers.md says


@_fault
def database_deleted(victim: Victim) -> Iterator[None]:
    _delete(victim.database)
    yield


@_fault
def log_of_records_deleted(victim: Victim) -> Iterator[None]:
    (victim.sinks / "records.jsonl").unlink(missing_ok=True)
    yield


@_fault
def receiver_away(victim: Victim) -> Iterator[None]:
    victim.receiver.close()
    yield
    victim.receiver.open()


@_fault
def descriptors_short(victim: Victim) -> Iterator[None]:
    with _limited(victim.pid, "nofile", len(list(Path(f"/proc/{victim.pid}/fd").iterdir())) + 1):
        yield


@_fault
def memory_short(victim: Victim) -> Iterator[None]:
    with _limited(victim.pid, "as", psutil.Process(victim.pid).memory_info().vms + (256 << 10)):
        yield


def _signal(victim: Victim, role: str, number: signal.Signals) -> None:
    with contextlib.suppress(KeyError, psutil.NoSuchProcess):  # it was killed before
        family(victim.pid)[role].send_signal(number)


@contextmanager
def _limited(pid: int, resource: str, most: int) -> Iterator[None]:
    """Lower a limit of a process for a while, as the user that it runs as: others may not."""
    process = psutil.Process(pid)
    user, group = process.uids().real, process.gids().real

    def prlimit(*arguments: str) -> str:
        command = ["prlimit", f"--pid={pid}", *arguments]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, user=user, group=group, extra_groups=[])
        return done.stdout.strip()

    before = prlimit(f"--{resource}", "--output=SOFT", "--noheadings", "--raw")
    prlimit(f"--{resource}={most}:")
    yield
    prlimit(f"--{resource}={before}:")


def _delete(database: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        Path(f"{database}{ending}").unlink(missing_ok=True)
