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
from exporter.kernel.layout import RECORD_FIELDS
from exporter.kernel.wait_status import outcome_of
from exporter.model import Mode
from exporter.records.record import Record
from exporter.sources.base import Publish

logger = logging.getLogger(__name__)

_INTERVAL_SECONDS = 0.25
"""Between two reads if not live. The ring buffer holds about 6,000 records."""
_LIVE_TIMEOUT_SECONDS = 1.0
_GATHER_SECONDS = 0.0001
"""Delay after a wake-up: during a storm, a wake-up for each record would cost more than the records."""
_JOIN_SECONDS = 2.0


class RecordBuffer(Protocol):
    """Memory to which the kernel writes records."""

    descriptors: list[int]
    """Readable when a record was written, if the programs are set to `RECORDS_LIVE`."""
    lost: int
    """Records dropped because the buffer was full, and not counted by the programs."""

    def pop(self) -> list[tuple[Any, ...]]:
        """Return a batch of records as tuples in the order of `RECORD_FIELDS`; empty if there are no more."""

    def close(self) -> None:
        """Unmap."""


class RecordReader:
    """Reads a buffer of records in a thread."""

    def __init__(self, buffer: RecordBuffer, cgroups: Cgroups, mode: Mode, publish: Publish, *, live: bool) -> None:
        """Start the thread. Raises `OSError`.

        It passes records to `publish`: at once if `live`, else four times per second. It owns `buffer`, and `stop` closes it.
        """
        self._buffer = buffer
        self._mode = mode
        self._publish = publish
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
        idle, live = _poll(self._wake), _poll(self._wake, *self._buffer.descriptors)
        try:
            while not self._stopping:
                if self._live:
                    live.poll(_LIVE_TIMEOUT_SECONDS * 1000)
                    time.sleep(_GATHER_SECONDS)
                else:
                    idle.poll(_INTERVAL_SECONDS * 1000)
                self._drain()
            self._drain()
        except Exception:
            logger.exception("record reader failed; counters are unaffected")

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while raw := self._buffer.pop():
            self._publish(records(raw, self._cgroups.path, self._mode))


def records(raw: list[tuple[Any, ...]], path_of_cgroup: Callable[[int], bytes], mode: Mode) -> list[Record]:
    """Decode records. Fields that are not named here have the value of the kernel's field of that name, or their default."""
    ahead_ns = time.time_ns() - time.monotonic_ns()
    kernel = dict(zip(RECORD_FIELDS, zip(*raw, strict=True), strict=True))
    outcomes, codes = zip(*map(outcome_of, kernel["code"]), strict=True)
    defaults = {name: repeat(value) for name, value in Record._field_defaults.items()}
    columns: dict[str, Iterable[Any]] = {
        **defaults,
        **kernel,
        "ended_ns": [ns + ahead_ns for ns in kernel["ended_ns"]],
        "comm": [name.rstrip(b"\0") for name in kernel["comm"]],
        "parent_comm": [name.rstrip(b"\0") for name in kernel["parent_comm"]],
        "exe": [path[: path.find(b"\0")] for path in kernel["exe"]],  # after the first NUL there may be bytes of another process
        "outcome": outcomes,
        "code": codes,
        "cpu_ns": repeat(None),
        "cgroup": map(path_of_cgroup, kernel["cgroup"]),
        "mode": repeat(mode),
    }
    return list(map(Record._make, zip(*map(columns.__getitem__, Record._fields), strict=False)))


def _poll(*descriptors: int) -> select.poll:
    poll = select.poll()
    for each in descriptors:
        poll.register(each, select.POLLIN)
    return poll
