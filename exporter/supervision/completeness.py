"""Compares the clones that were observed with the clones that the kernel counted.

The kernel counts every clone (`processes` of /proc/stat, threads and io_uring workers included: kernel/fork.c, total_forks). The source
counts those that it observed. The two are read at slightly different moments, so the source is read before and after the kernel; a kernel's
count between the two is not a loss.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from exporter.kernel.procfs import Procfs
from exporter.model import NS

_WINDOW_NS = 60 * NS
_TRIES = 20
_PAUSE_SECONDS = 0.0005
_STILL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Sample:
    """Clones as counted by the kernel and as observed, up to the same moment: since the start of the exporter, or in some time."""

    kernel: int
    observed: int

    @property
    def ratio(self) -> float:
        """Return the observed fraction; 1 if there were none."""
        return self.observed / self.kernel if self.kernel > 0 else 1.0


def no_ratio(procfs: Procfs) -> str | None:
    """Return why no mode has a capture ratio on this host, or None if there can be one."""
    if procfs.kernel_clones() is not None:
        return None
    return (
        f"{procfs.root}/stat cannot be read, as in a proc mount with subset=pid: there is no capture ratio, "
        "and fast_scan and scan cannot tell how many processes they miss"
    )


class Completeness:
    """Compares the two counts at each tick and each scrape. Only `tick` changes state."""

    def __init__(self, kernel_clones: Callable[[], int | None], now: Callable[[], int] = time.monotonic_ns) -> None:
        """`kernel_clones` returns the count since boot, or None if it cannot be read."""
        self._kernel_clones = kernel_clones
        self._now = now
        self._base: Sample | None = None
        self._missing = 0
        self._history: deque[tuple[int, Sample]] = deque()

    def begin(self, observed: Callable[[], int]) -> None:
        """Start both counts now, if possible at a moment when no clone is counted by only one of the two."""
        for _ in range(_TRIES):
            kernel, before = self._kernel_clones(), observed()
            if kernel is None:
                return
            self._base = Sample(kernel, before)
            time.sleep(_STILL_SECONDS)
            if (kernel, before) == (self._kernel_clones(), observed()):
                break

    def sample(self, observed: Callable[[], int], *, immediate: bool) -> Sample | None:
        """Return both counts, or None if the kernel's count cannot be read. `immediate`: the source observes a clone as it happens."""
        base = self._base
        if base is None:
            return None
        for attempt in range(_TRIES):
            before, kernel, after = observed(), self._kernel_clones(), observed()
            if kernel is None:
                return None
            missing = (kernel - base.kernel) - (after - base.observed)
            if attempt == _TRIES - 1 or not immediate or missing <= self._missing:
                return Sample(kernel - base.kernel, min(max(kernel - base.kernel, before - base.observed), after - base.observed))
            time.sleep(_PAUSE_SECONDS)  # the kernel counts a clone a moment before its tracepoint fires
        raise AssertionError

    def tick(self, sample: Sample | None) -> None:
        """Keep a sample; called about once a second."""
        if sample is None:
            self._history.clear()
            return
        self._missing = sample.kernel - sample.observed
        now = self._now()
        self._history.append((now, sample))
        while len(self._history) > 1 and self._history[1][0] <= now - _WINDOW_NS:
            self._history.popleft()

    def last_minute(self, sample: Sample | None) -> Sample | None:
        """Return the clones from 60 s ago (or the start) to `sample`, never more observed than counted; None if unknown."""
        if sample is None or not self._history:
            return None
        then = self._history[0][1]
        kernel = max(0, sample.kernel - then.kernel)
        return Sample(kernel, min(kernel, max(0, sample.observed - then.observed)))
