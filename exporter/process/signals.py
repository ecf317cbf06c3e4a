"""Waits for signals, and handles dispositions inherited from the parent.

This uses signalfd(2) because `signal.sigtimedwait` has a bug in CPython (Modules/signalmodule.c, at least up to 3.13). If the process is
stopped (SIGSTOP, a frozen cgroup, a debugger) for longer than the timeout, it returns an uninitialized structure, i.e. a random signal.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import struct
from collections.abc import Iterable

from exporter.process.privileges import check

_SIGSET_BYTES = 128  # of sigset_t in glibc and musl
_STOPS = {signal.SIGTERM, signal.SIGINT}
_SIGINFO = struct.Struct("=I124x")
"""`struct signalfd_siginfo`: only the signal number."""


def restore_dispositions() -> None:
    """Restore the default for SIGCHLD: if the parent ignored it, the exit status of every child would be lost (wait(2))."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def hangup_is_ignored() -> bool:
    """Return whether the parent ignored SIGHUP, as nohup(1) does."""
    return signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def stop_is_pending() -> bool:
    """Return whether SIGTERM or SIGINT is pending. Then this process should not wait for anything else."""
    return not _STOPS.isdisjoint(signal.sigpending())


class Signals:
    """Blocks signals and waits for them. Create it before the first thread or child: they inherit the mask."""

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        """Block these signals. Raises `OSError`."""
        wanted = frozenset(numbers)
        signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
        self._fd = _signalfd(wanted)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll = select.poll()
        for fd in (self._fd, self._wake):
            self._poll.register(fd, select.POLLIN)

    def wait(self, seconds: float) -> signal.Signals | None:
        """Return the next signal; None after `seconds`, or if another thread has called `wake`."""
        ready = {fd for fd, _ in self._poll.poll(max(0.0, seconds) * 1000)}
        if self._wake in ready:
            os.eventfd_read(self._wake)
        if self._fd not in ready:
            return None
        return signal.Signals(_SIGINFO.unpack(os.read(self._fd, _SIGINFO.size))[0])

    def fileno(self) -> int:
        """Return a descriptor that is readable when `wait` would return a signal at once."""
        return self._fd

    def wake(self) -> None:
        """End the current or the next `wait`."""
        os.eventfd_write(self._wake, 1)


def _signalfd(numbers: Iterable[signal.Signals]) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    mask = ctypes.create_string_buffer(_SIGSET_BYTES)
    for number in numbers:
        check(libc.sigaddset(mask, number))
    fd: int = libc.signalfd(-1, mask, os.O_CLOEXEC)  # the same value as SFD_CLOEXEC
    check(min(fd, 0))
    return fd
