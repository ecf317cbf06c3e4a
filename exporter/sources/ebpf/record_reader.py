"""The thread that reads records of short processes from the kernel, many at once, and publishes them."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any, Protocol

from exporter.kernel.cgroups import Cgroups
from exporter.kernel.layout import RECORD_FIELDS, SPAWNER_DEEP, SPAWNER_FOUND
from exporter.kernel.wait_status import outcome_of
from exporter.model import Mode, Outcome
from exporter.model.origins import DEEP
from exporter.records.record import Record
from exporter.sources.base import CpuFollows, Publish
from exporter.sources.ebpf.cpu_join import CpuJoin
from exporter.sources.ebpf.lineages import Lineages

logger = logging.getLogger(__name__)

_INTERVAL_SECONDS = 0.25
"""Between two reads if not live. The ring buffer holds about 2,500 records, and wakes the reader when it is half full."""
_LIVE_TIMEOUT_SECONDS = 1.0
_CPU_SECONDS = 0.025
"""Between two looks for the CPU of records that wait for it, if live."""
_GATHER_SECONDS = 0.025
"""Delay after a wake-up. During a storm, a wake-up for each record would cost ten times as much as the record."""
_AT_ONCE_SECONDS = 0.0001
"""The same if a consumer needs records at once."""
_JOIN_SECONDS = 2.0
_MOST_AT_ONCE = 512


class RecordBuffer(Protocol):
    """Memory to which the kernel writes records."""

    descriptors: list[int]
    """Readable when a record was written, if the programs are set to `RECORDS_LIVE`."""
    wakes_when_full: bool
    """Whether they are readable also when the buffer becomes half full."""
    lost: int
    """Records dropped because the buffer was full, and not counted by the programs."""

    def pop(self) -> list[tuple[Any, ...]]:
        """Return a batch of records as tuples in the order of `RECORD_FIELDS`; empty if there are no more.

        Where arguments are asked for, `Arguments` or None is behind them.
        """

    @property
    def join(self) -> CpuJoin | None:
        """Return what joins records with their CPU, if that is reported after them."""

    @property
    def lineages(self) -> Lineages:
        """Return what knows the ancestors of processes."""

    @property
    def exes_lost(self) -> int:
        """Return the number of records without a path that the programs did not count."""

    def close(self) -> None:
        """Unmap."""


class RecordReader:
    """Reads a buffer of records in a thread."""

    def __init__(  # noqa: PLR0913 - set once, at one place
        self, buffer: RecordBuffer, cgroups: Cgroups, mode: Mode, publish: Publish, *, live: bool, follows: CpuFollows | None = None
    ) -> None:
        """Start the thread. Raises `OSError`.

        It passes records to `publish`: after 25 ms if `live` (or at once, if `follows` asks for that), else four times per second. If the
        buffer has a `join`, they wait for their CPU first; `follows`, if given, is told of them before, and gets them then. It owns
        `buffer`, and `stop` closes it.
        """
        self._buffer = buffer
        self._join = buffer.join
        self._mode = mode
        self._publish = publish
        self._follows = follows
        self._live = live
        self._cgroups = cgroups
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads
            os.close(self._wake)
            raise OSError(errno.EAGAIN, str(error)) from error

    @property
    def lost(self) -> int:
        """See `RecordBuffer`."""
        return self._buffer.lost

    @property
    def exes_lost(self) -> int:
        """See `RecordBuffer`."""
        return self._buffer.exes_lost

    def set_live(self, live: bool) -> None:
        """Change `live`. The caller updates the control of the programs."""
        self._live = live
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """Read the remaining records, and stop. Call it after the programs were detached."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self._thread.join(_JOIN_SECONDS)
        if self._thread.is_alive():
            logger.warning("record reader did not stop in time")
            return
        os.close(self._wake)
        self._buffer.close()

    def _run(self) -> None:
        wake_ups = _edges(self._wake, self._buffer.descriptors if self._buffer.wakes_when_full else ())
        unread = _poll(self._wake, *self._buffer.descriptors)
        try:
            while not self._stopping:
                if not self._live:
                    wake_ups.poll(self._timeout())
                elif unread.poll(self._timeout() * 1000):
                    self._gather(wake_ups)
                self._drain()
            self._drain()
        except Exception:
            logger.exception("record reader failed; counters are unaffected")

    def _gather(self, wake_ups: select.epoll) -> None:
        """Wait for more records, so that a storm does not wake the reader for each one."""
        if self._follows is not None and self._follows.at_once:
            time.sleep(_AT_ONCE_SECONDS)
        else:
            wake_ups.poll(0)  # that of the first record
            wake_ups.poll(_GATHER_SECONDS)

    def _timeout(self) -> float:
        """Return how many seconds to wait at most."""
        if self._live:
            return _CPU_SECONDS if self._join else _LIVE_TIMEOUT_SECONDS
        if self._join:
            return min(_INTERVAL_SECONDS, max(_CPU_SECONDS, self._join.seconds_left(time.monotonic_ns())))
        return _INTERVAL_SECONDS

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while raw := self._buffer.pop():
            if self._join is None:
                self._publish(self._records(raw, repeat(None)))
                continue
            if self._follows is not None:
                self._tell_first(raw, self._follows)
            self._join.add(raw)
            self._complete(self._join)
        if self._join is not None:
            self._complete(self._join)

    def _tell_first(self, raw: list[tuple[Any, ...]], follows: CpuFollows) -> None:
        ahead_ns = _ahead_ns()
        follows.arrived([each[0] + ahead_ns for each in raw])  # `ended_ns`
        if follows.at_once:
            follows.first(self._records(raw, repeat(None)))

    def _complete(self, join: CpuJoin) -> None:
        raw, cpu_ns = join.pop_all() if self._stopping else join.pop(time.monotonic_ns())
        if raw:
            publish = self._publish if self._follows is None else self._follows.completed
            for at in range(0, len(raw), _MOST_AT_ONCE):
                part = slice(at, at + _MOST_AT_ONCE)
                publish(self._records(raw[part], cpu_ns[part]))

    def _records(self, raw: list[tuple[Any, ...]], cpu_ns: Iterable[int | None]) -> list[Record]:
        return records(raw, cpu_ns, self._cgroups.path, self._buffer.lineages, self._mode)


def records(
    raw: list[tuple[Any, ...]], cpu_ns: Iterable[int | None], path_of_cgroup: Callable[[int], bytes], lineages: Lineages, mode: Mode
) -> list[Record]:
    """Decode records. Fields that are not named here have the value of the kernel's field of that name, or their default."""
    ahead_ns = _ahead_ns()
    names = RECORD_FIELDS if len(raw[0]) == len(RECORD_FIELDS) else (*RECORD_FIELDS, "arguments")
    kernel = dict(zip(names, zip(*raw, strict=True), strict=True))
    outcomes, codes = zip(*map(outcome_of, kernel["code"]), strict=True)
    defaults = {name: repeat(value) for name, value in Record._field_defaults.items()}
    columns: dict[str, Iterable[Any]] = {
        **defaults,
        **kernel,
        "ended_ns": [ns + ahead_ns for ns in kernel["ended_ns"]],
        "comm": [name.rstrip(b"\0") for name in kernel["comm"]],
        "parent_comm": [name.rstrip(b"\0") for name in kernel["parent_comm"]],
        "spawner": map(_spawner, kernel["spawner_state"], kernel["spawner"]),
        "exe": [path.partition(b"\0")[0] for path in kernel["exe"]],  # after the first NUL there may be bytes of another process
        "outcome": outcomes,
        "code": codes,
        "oom_killed": map(_oom_killed, outcomes, kernel["oom_killed"]),
        "cpu_ns": cpu_ns,
        "cgroup": map(path_of_cgroup, kernel["cgroup"]),
        "mode": repeat(mode),
        "lineage": lineages.of(kernel),
    }
    if arguments := kernel.get("arguments"):
        columns["arguments"] = (each and each.text for each in arguments)
        columns["arguments_cut"] = (each and each.cut for each in arguments)
    return list(map(Record._make, zip(*map(columns.__getitem__, Record._fields), strict=False)))


def _ahead_ns() -> int:
    """Return how far Unix time is ahead of the monotonic clock."""
    return time.time_ns() - time.monotonic_ns()


def _edges(wake: int, descriptors: Iterable[int]) -> select.epoll:
    """Return an epoll that reports a descriptor at each wake-up. Without edges it would report a buffer that is not empty."""
    epoll = select.epoll()
    epoll.register(wake, select.EPOLLIN)
    for each in descriptors:
        epoll.register(each, select.EPOLLIN | select.EPOLLET)
    return epoll


def _spawner(state: int, name: bytes) -> bytes:
    return name.rstrip(b"\0") if state == SPAWNER_FOUND else DEEP if state == SPAWNER_DEEP else b""


def _oom_killed(outcome: Outcome, oom_killed: int) -> bool | None:
    return None if outcome is Outcome.UNKNOWN else bool(oom_killed)


def _poll(*descriptors: int) -> select.poll:
    poll = select.poll()
    for each in descriptors:
        poll.register(each, select.POLLIN)
    return poll
