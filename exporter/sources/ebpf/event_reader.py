"""The thread that reads events of processes from the kernel, many at once, and publishes them."""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
import time
from typing import Any

from exporter.kernel.attached import EVENT_BYTES, Handover
from exporter.kernel.event_layout import EVENT_FORMAT
from exporter.kernel.wait_status import outcome_of
from exporter.model import Mode
from exporter.model.events import EventKind
from exporter.records.event import Event
from exporter.sources.base import PublishEvents
from exporter.sources.ebpf.ringbuf import RingBuffer

logger = logging.getLogger(__name__)

_GATHER_SECONDS = 0.01
"""Delay after a wake-up. The kernel wakes the reader only for an event after all were read, so at most 100 times per second."""
_JOIN_SECONDS = 2.0
_KINDS = tuple(EventKind)


class EventReader:
    """Reads the ring of events in a thread."""

    def __init__(self, kernel: Handover, mode: Mode, publish: PublishEvents) -> None:
        """Start the thread. Raises `OSError`."""
        fd = kernel.maps["events"].fd
        self._ring = RingBuffer(fd, kernel.facts[EVENT_BYTES], EVENT_FORMAT)
        self._mode = mode
        self._publish = publish
        self._stopping = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._poll.register(fd, select.POLLIN)
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads
            os.close(self._wake)
            self._ring.close()
            raise OSError(errno.EAGAIN, str(error)) from error

    def stop(self) -> None:
        """Read the remaining events, and stop. Call it after the programs were detached."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self._thread.join(_JOIN_SECONDS)
        if self._thread.is_alive():
            logger.warning("event reader did not stop in time")
            return
        os.close(self._wake)
        self._ring.close()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._poll.poll()
                if not self._stopping:
                    time.sleep(_GATHER_SECONDS)
                while raw := self._ring.pop():
                    self._publish(events(raw, self._mode))
        except Exception:
            logger.exception("event reader failed; counters are unaffected")


def events(raw: list[tuple[Any, ...]], mode: Mode) -> list[Event]:
    """Decode events."""
    ahead_ns = time.time_ns() - time.monotonic_ns()
    return [_event(each, ahead_ns, mode) for each in raw]


def _event(values: tuple[Any, ...], ahead_ns: int, mode: Mode) -> Event:
    at_ns, runtime_ns, kind, pid, ppid, uid, code, other_pid, comm, parent_comm, sender_comm, exe = values
    what = _KINDS[kind]
    process = what, at_ns + ahead_ns, pid, ppid, uid, comm.rstrip(b"\0"), parent_comm.rstrip(b"\0")
    if what is EventKind.EXEC:  # after the first NUL of the path there may be bytes of an earlier event
        return Event(*process, exe.partition(b"\0")[0], None, None, None, None, None, b"", mode)
    if what is EventKind.EXIT:
        return Event(*process, b"", *outcome_of(code), runtime_ns, None, None, b"", mode)
    if what is EventKind.FORK:
        return Event(*process, b"", None, None, None, other_pid, None, b"", mode)
    return Event(*process, b"", None, code, None, None, other_pid, sender_comm.rstrip(b"\0"), mode)
