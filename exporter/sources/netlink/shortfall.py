"""Clones that the kernel counted and no event told of."""

from __future__ import annotations

from exporter.kernel.procfs import Procfs
from exporter.model import Lost, SourceFailed
from exporter.sources.tally import Tally

SILENCE = 3
"""Looks in a row that must find new clones and no event, before events are thought to have stopped."""


class Shortfall:
    """Compares the kernel's count with the events, since the last time the two agreed; what it makes of it never falls.

    The kernel's count is read before and after the events. If it stood still, the comparison is exact, and with nothing missing it is where
    the next one starts from. Otherwise it is a lower bound.
    """

    def __init__(self, procfs: Procfs, tally: Tally) -> None:
        self.lost = False
        """Whether events are known to have been dropped."""
        self._procfs = procfs
        self._tally = tally
        self._ahead: int | None = None
        self._most = 0
        self._before = self._told = 0
        self._doubted = False
        self._silent = 0

    def begin(self, told: int) -> None:
        """Compare from now on."""
        clones = self._procfs.kernel_clones()
        self._ahead = None if clones is None else clones - told

    def compare(self, before: int | None, told: int) -> bool:
        """Count what is missing of the clones that the kernel had counted `before` all events were read, which told of so many.

        Returns whether events were dropped in silence, for lack of memory perhaps. Raises `SourceFailed` where none come any more: in older
        kernels one listener too many that leaves (PROC_CN_MCAST_IGNORE) stops them for all.
        """
        if before is None or self._ahead is None:
            return False
        still = before == self._procfs.kernel_clones()
        missing = before - told - self._ahead
        silently = False
        if not self.lost and missing > 0:
            self._listen(before, told)
            if not self._doubted:  # the kernel counts a clone a moment before it tells of it
                self._doubted = True
                return False
            silently = self.lost = still
        if self.lost and missing > self._most:
            self._tally.lose(Lost.OVERRUN, missing - self._most)
            self._most = missing
        if still:
            self._ahead, self._most, self.lost = before - told, 0, False
        self._doubted = False
        return silently

    def _listen(self, before: int, told: int) -> None:
        self._silent = self._silent + 1 if told == self._told and before > self._before else 0
        self._before, self._told = before, told
        if self._silent >= SILENCE:
            raise SourceFailed("the kernel sends no process events any more")
