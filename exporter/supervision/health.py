"""Checks the active source against the kernel's count of clones."""

from __future__ import annotations

from collections.abc import Callable, Collection

from exporter.model import Lost, Mode, SourceFailed
from exporter.model.counts import Counts
from exporter.sources.base import Source
from exporter.supervision.completeness import Completeness, Sample

_BLIND_TICKS = 3
_BLIND_CLONES = 10
"""A source that observes clones as they happen is blind if it misses more than half of this many clones in this many ticks in a row."""


class Health:
    """Compares the clones observed by all sources since the start. Methods take the active source. Not thread-safe."""

    def __init__(self, kernel_clones: Callable[[], int | None], at_once: Collection[Mode]) -> None:
        """See `Completeness`. `at_once` are the modes that observe each clone as it happens."""
        self._at_once = at_once
        self.last: Sample | None = None
        """As of the last tick, or of a stop or start of a source since then."""
        self._well: Sample | None = None
        """As of the last tick. Clones after it may be unobserved if the source has failed."""
        self._completeness = Completeness(kernel_clones)
        self._earlier_clones = 0
        self._retiring: Source | None = None
        self._blind_ticks = 0

    def begin(self, source: Source) -> None:
        """Start to compare."""
        self._completeness.begin(source.clones)

    def sample(self, source: Source | None) -> Sample | None:
        """Return both counts, or None if they are not of the same processes. Changes nothing."""
        if source is None or not source.counts_host():
            return None
        running = [each for each in (self._retiring, source) if each is not None]
        at_once = source.mode in self._at_once
        return self._completeness.sample(lambda: self._earlier_clones + sum(each.clones() for each in running), immediate=at_once)

    def last_minute(self, sample: Sample | None) -> Sample | None:
        """See `Completeness`."""
        return self._completeness.last_minute(sample)

    def tick(self, source: Source | None) -> None:
        """Keep a sample; called about once a second."""
        sample, before = self.sample(source), self._well
        self._completeness.tick(sample)
        self.last, self._well = sample or self.last, sample or before
        if sample is not None and before is not None and source is not None and source.mode in self._at_once:
            kernel, observed = sample.kernel - before.kernel, sample.observed - before.observed
            self._blind_ticks = self._blind_ticks + 1 if kernel >= _BLIND_CLONES and observed < kernel / 2 else 0

    def check(self) -> None:
        """Raise `SourceFailed` if the source has become blind without noticing."""
        if self._blind_ticks >= _BLIND_TICKS:
            raise SourceFailed(f"it missed most clones counted by the kernel in each of {_BLIND_TICKS} seconds")

    def retiring(self, source: Source) -> None:
        """Note that it is no longer active. Its late counts still count, and no shown count decreases."""
        self.last = self.sample(source) or self.last
        self._retiring = source
        self._blind_ticks = 0

    def ended(self, source: Source) -> None:
        """Note that it has been stopped."""
        self._earlier_clones += source.clones()
        self._retiring = None

    def gap(self, source: Source) -> Counts:
        """Return the losses between the failure of the previous source and the start of this one."""
        lost, before, sample = Counts(), self._well, self.sample(source)
        if before is not None and sample is not None:
            lost.lose(Lost.SWITCH_GAP, sample.kernel - before.kernel)
        self.last, self._well = sample or self.last, sample or before
        return lost
