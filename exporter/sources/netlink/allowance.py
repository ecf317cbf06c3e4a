"""Bounds work that is useful but not needed, so that events don't overflow their socket meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from exporter.model import NS

T = TypeVar("T")

READS_SHARE = 100
"""One part of the time in so many may be spent on reads."""


class Allowance:
    """Time that passes pays for the work. A pause can pay for later work, but only up to a limit."""

    def __init__(self, saved_ns: int, now: Callable[[], int] = time.monotonic_ns) -> None:
        """Save up to `saved_ns`."""
        self._saved_ns = saved_ns
        self._now = now
        self._paid_ns = 0

    @property
    def is_spent(self) -> bool:
        """Whether nothing may be done now."""
        return self._now() < self._paid_ns

    def charge(self, ns: int) -> None:
        """Pay for work with so much of the passing time."""
        self._paid_ns = max(self._paid_ns, self._now() - self._saved_ns) + ns


class ReadAllowance(Allowance):
    """For reads of `/proc`, by the wall clock: a read of a cgroup waits while the kernel creates or removes one."""

    def __init__(self) -> None:
        super().__init__(saved_ns=NS)

    def read(self, read: Callable[[int], T], pid: int) -> T | None:
        """Return what `read` returns for this PID, or None if nothing may be read now."""
        if self.is_spent:
            return None
        begun = self._now()
        result = read(pid)
        self.charge((self._now() - begun) * READS_SHARE)
        return result
