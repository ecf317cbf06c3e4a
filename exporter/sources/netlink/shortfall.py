"""Finds clones that the kernel counted, but no event reported."""

from __future__ import annotations

from exporter.kernel.procfs import Procfs
from exporter.model import Lost, SourceFailed
from exporter.sources.tally import Tally

SILENT_CHECKS = 3
"""Consecutive checks with new clones but without events, after which events are considered stopped."""


class Shortfall:
    """Compares the kernel's number of clones with the clones reported by events, since the two last agreed.

    The kernel's number is read before and after the events. If both are equal, the comparison is exact, and the next one starts from it.
    Otherwise the result is a lower bound. The number of clones counted as lost never decreases.
    """

    def __init__(self, procfs: Procfs, tally: Tally) -> None:
        self.lost = False
        """Whether events were dropped."""
        self._procfs = procfs
        self._tally = tally
        self._offset: int | None = None
        self._counted_missing = 0
        self._last_kernel_clones = self._last_reported = 0
        self._seen_once = False
        self._silent_checks = 0

    def begin(self, reported: int) -> None:
        """Start to compare. `reported` is the number of clones reported by events."""
        clones = self._procfs.kernel_clones()
        self._offset = None if clones is None else clones - reported

    def compare(self, before: int | None, reported: int) -> bool:
        """Count the missing clones as lost. Returns whether events were dropped without an error, e.g. for lack of memory.

        `before` is the kernel's number of clones before all events were read, `reported` the number reported by events. Raises
        `SourceFailed` if events have stopped: on older kernels, an extra PROC_CN_MCAST_IGNORE of any process stops them for all.
        """
        if before is None or self._offset is None:
            return False
        unchanged = before == self._procfs.kernel_clones()
        missing = before - reported - self._offset
        silently = False
        if not self.lost and missing > 0:
            self._check_silence(before, reported)
            if not self._seen_once:  # the kernel counts a clone shortly before it sends the event
                self._seen_once = True
                return False
            silently = self.lost = unchanged
        if self.lost and missing > self._counted_missing:
            self._tally.lose(Lost.OVERRUN, missing - self._counted_missing)
            self._counted_missing = missing
        if unchanged:
            self._offset, self._counted_missing, self.lost = before - reported, 0, False
        self._seen_once = False
        return silently

    def _check_silence(self, before: int, reported: int) -> None:
        self._silent_checks = self._silent_checks + 1 if reported == self._last_reported and before > self._last_kernel_clones else 0
        self._last_kernel_clones, self._last_reported = before, reported
        if self._silent_checks >= SILENT_CHECKS:
            raise SourceFailed("the kernel has stopped sending process events")
