"""Reads records of single short processes from the kernel's ring buffer, many at once.

Layout of the memory: kernel/bpf/ringbuf.c. A page that we write (how far we have read), a page that the kernel writes (how far it has
written), and the data twice in a row, so that what wraps around is in one piece. Before each record are eight bytes: its length with a
bit that it is still being written, and a number for the kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import mmap
import os
import select
import threading
import time
from struct import Struct
from typing import Any

from exporter.layout import COMM_LEN, EXE_LEN, RECORDS_BYTES
from exporter.layout import Record as Layout
from exporter.model import Mode, Outcome, Record
from exporter.sources.base import Publish
from exporter.sources.cgroups import Cgroups

logger = logging.getLogger(__name__)

_HEADER = 8
_STRIDE = _HEADER + ctypes.sizeof(Layout)
_RECORD = Struct(f"=IIQQQIIIi{COMM_LEN}s{COMM_LEN}s{EXE_LEN}s")
_WORDS = _STRIDE // 4
_BUSY = 1 << 31
_BATCH = 512
_PAUSE_SECONDS = 0.25
"""Between two looks while nobody waits: the ring holds a second of 6,000 processes."""
_LIVE_MS = 1000
_GATHER_SECONDS = 0.0001
"""In a storm, a wake-up for each record would cost the machine more than the records do."""
_JOIN_SECONDS = 2.0

_OK, _ERROR, _SIGNAL, _UNKNOWN = (list(Outcome).index(each) for each in (Outcome.OK, Outcome.ERROR, Outcome.SIGNAL, Outcome.UNKNOWN))


class Ring:
    """The memory. Not safe for threads. The kernel may go on writing while it is read."""

    def __init__(self, fd: int) -> None:
        """Map the ring `fd`, of `RECORDS_BYTES`. Raises `OSError`."""
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(fd, page)
        try:
            self._producer = mmap.mmap(fd, page + 2 * RECORDS_BYTES, prot=mmap.PROT_READ, offset=page)
        except OSError:
            self._consumer.close()
            raise
        self._position = memoryview(self._consumer).cast("Q")
        self._written = memoryview(self._producer)[:8].cast("Q")
        self._data = memoryview(self._producer)[page:]

    def take(self) -> list[tuple[Any, ...]]:
        """Take at most a batch of what is complete."""
        position = self._position[0]
        at = position % RECORDS_BYTES
        n = min((self._written[0] - position) // _STRIDE, _BATCH, len(self._data) // _STRIDE)
        headers = self._data[at : at + n * _STRIDE].cast("I")[::_WORDS].tolist()
        complete = next((number for number, header in enumerate(headers) if header & _BUSY), len(headers))
        taken = list(_RECORD.iter_unpack(self._data[at : at + complete * _STRIDE]))
        self._position[0] = position + complete * _STRIDE
        return taken

    def close(self) -> None:
        """Unmap."""
        for view in (self._position, self._written, self._data):
            view.release()
        self._consumer.close()
        self._producer.close()


class RingReader:
    """A thread that takes records out of a ring and hands them on."""

    def __init__(self, fd: int, mode: Mode, publish: Publish, *, live: bool) -> None:
        """Hand records to `publish`: at once if `live`, else some times a second. Raises `OSError`."""
        self._fd = fd
        self._mode = mode
        self._publish = publish
        self._live = live
        self._ring = Ring(fd)
        self._cgroups = Cgroups()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self._thread.start()

    def live(self, live: bool) -> None:
        """Change that; the kernel is told by the caller."""
        self._live = live
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """Take what is left, and end. The kernel writes nothing any more."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self._thread.join(_JOIN_SECONDS)
        if self._thread.is_alive():
            logger.warning("the reader of records did not stop in time")
            return
        os.close(self._wake)
        self._ring.close()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        try:
            while not self._stopping:
                if self._live:
                    poll.register(self._fd, select.POLLIN)
                    poll.poll(_LIVE_MS)
                    poll.unregister(self._fd)
                    time.sleep(_GATHER_SECONDS)
                else:
                    poll.poll(_PAUSE_SECONDS * 1000)
                self._drain()
            self._drain()
        except Exception:
            logger.exception("the reader of records broke; counts go on without it")

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while taken := self._ring.take():
            self._publish(self._records(taken))

    def _records(self, taken: list[tuple[Any, ...]]) -> list[Record]:
        ahead_ns = time.time_ns() - time.monotonic_ns()
        cgroup, mode = self._cgroups.path, self._mode
        return [
            Record(
                ended_ns + ahead_ns,
                runtime_ns,
                pid,
                ppid,
                uid,
                comm.rstrip(b"\0"),
                parent.rstrip(b"\0"),
                exe[: exe.find(b"\0")],
                *outcome_of(code),
                None,
                cgroup(cgroup_id),
                mode,
            )
            for _, _, ended_ns, runtime_ns, cgroup_id, pid, ppid, uid, code, comm, parent, exe in taken
        ]


def outcome_of(code: int) -> tuple[int, int | None]:
    """Outcome, and exit code or signal, of what wait(2) would give; below 0 is unknown."""
    if code < 0:
        return _UNKNOWN, None
    if code & 0x7F:
        return _SIGNAL, code & 0x7F
    return (_ERROR if code else _OK), code >> 8 & 0xFF
