"""Short processes of each second: the last 15 minutes, in a few kilobytes.

The source keeps the last 60 seconds by itself, so a second that is noted late is exact all the same.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from exporter.model import RECENT_SECONDS

KEPT_SECONDS = 900
NOW_SECONDS = 5
_UNKNOWN = -1


class Seconds(NamedTuple):
    """Short exits of whole seconds, oldest first; None where they are unknown."""

    end: int
    """The second after the last one, of the monotonic clock."""
    short_exits: Sequence[int | None]

    def last(self, seconds: int) -> Seconds:
        """Return the last ones."""
        return Seconds(self.end, self.short_exits[-seconds:])

    def known(self) -> list[int]:
        """Return those that are known."""
        return [n for n in self.short_exits if n is not None]

    def per_second(self) -> float | None:
        """Return the rate over the known ones; None without any."""
        known = self.known()
        return sum(known) / len(known) if known else None

    def slices(self, length: int) -> list[Seconds]:
        """Return slices of `length`. Each begins at a multiple of it, so that a second stays in its slice; the last may be shorter."""
        begin = self.end - len(self.short_exits)
        starts = range(begin + -begin % length, self.end, length)
        ends = [min(start + length, self.end) for start in starts]
        return [Seconds(end, self.short_exits[start - begin : end - begin]) for start, end in zip(starts, ends, strict=True)]


class Timeline:
    """Call `note` about once a second. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ring = array("q", [_UNKNOWN]) * KEPT_SECONDS
        self._end: int | None = None
        """The second after the last one that is kept."""

    def note(self, now: int, short_exits: Mapping[int, int] | None) -> None:
        """Note the short exits of the seconds before `now`, as `Gauges` has them. None: nobody counts."""
        with self._lock:
            begin = now - 1 if self._end is None else max(self._end, now - KEPT_SECONDS)
            counted_from = now if short_exits is None else now - RECENT_SECONDS
            for second in range(begin, now):
                self._ring[second % KEPT_SECONDS] = 0 if second >= counted_from else _UNKNOWN
            self._end = max(now, self._end or now)
            for second, n in (short_exits or {}).items():  # after a switch of modes, the new source does not know the earlier ones
                if now - RECENT_SECONDS <= second < now and (known := self._ring[second % KEPT_SECONDS]) != _UNKNOWN:
                    self._ring[second % KEPT_SECONDS] = max(known, n)

    def seconds(self) -> Seconds:
        """Return all that is kept."""
        with self._lock:
            end = self._end or 0
            at = end % KEPT_SECONDS
            kept = self._ring[at:] + self._ring[:at]
        return Seconds(end, [None if n == _UNKNOWN else n for n in kept])
