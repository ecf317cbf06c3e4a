"""Signals as this process waits for them, and how it takes over those that its parent had set.

`signal.sigtimedwait` can't be used: where a stop (SIGSTOP, a frozen cgroup, a debugger) outlasts its time, CPython gives an unfilled
structure back (Modules/signalmodule.c, up to 3.13 at least), that is, any signal or none. signalfd(2) has no such moment.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import struct
from collections.abc import Iterable

from exporter.process.privileges import check

_SIGSET_BYTES = 128  # sigset_t of glibc and musl
_STOPS = {signal.SIGTERM, signal.SIGINT}
_SIGINFO = struct.Struct("=I124x")
"""`struct signalfd_siginfo`, of which the number is read."""


def restore_dispositions() -> None:
    """Undo what a parent ignores and a program inherits: with SIGCHLD ignored, the status of every child is lost (wait(2))."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def hangup_is_ignored() -> bool:
    """Whether the parent wants this program to outlive its terminal, as nohup(1) does."""
    return signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def stop_is_pending() -> bool:
    """Whether this process was told to stop and has not taken notice yet: then it should wait for nothing else."""
    return not _STOPS.isdisjoint(signal.sigpending())


class Signals:
    """Blocks signals and waits for them, as long as this process lives. Made before the first thread or child: they inherit the mask."""

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        """Raises `OSError`."""
        wanted = frozenset(numbers)
        signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
        self._fd = _signalfd(wanted)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll = select.poll()
        for fd in (self._fd, self._wake):
            self._poll.register(fd, select.POLLIN)

    def wait(self, seconds: float) -> signal.Signals | None:
        """The next signal; None where the time is over, or another thread has called `wake`."""
        ready = {fd for fd, _ in self._poll.poll(max(0.0, seconds) * 1000)}
        if self._wake in ready:
            os.eventfd_read(self._wake)
        if self._fd not in ready:
            return None
        return signal.Signals(_SIGINFO.unpack(os.read(self._fd, _SIGINFO.size))[0])

    def wake(self) -> None:
        """End the `wait` that goes on, or else the next one."""
        os.eventfd_write(self._wake, 1)


def _signalfd(numbers: Iterable[signal.Signals]) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    mask = ctypes.create_string_buffer(_SIGSET_BYTES)
    for number in numbers:
        check(libc.sigaddset(mask, number))
    fd: int = libc.signalfd(-1, mask, os.O_CLOEXEC)  # SFD_CLOEXEC is the same
    check(min(fd, 0))
    return fd
