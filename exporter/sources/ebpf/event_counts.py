"""Reads how many events the programs have sent, and how many they could not send, of the kinds whose programs are attached."""

from __future__ import annotations

from exporter.kernel.attached import EVENT_PROGRAMS, Handover
from exporter.kernel.bpf import program_info
from exporter.model.counts import Counts
from exporter.model.events import EventKind

_ZERO = b"\0" * 4
_SENT, _FULL, _MISSED = "sent", "full", "missed"

_Sums = dict[tuple[EventKind, str], int]


class EventCounts:
    """The counts since the last drain. The methods raise `OSError`."""

    def __init__(self, kernel: Handover) -> None:
        self._kernel = kernel
        self._drained: _Sums = {}

    def peek(self) -> _Sums:
        """Return the growth since the last drain, also where it is 0."""
        return {key: n - self._drained.get(key, 0) for key, n in self._sums().items()}

    def drain(self) -> _Sums:
        """Return what `peek` does, and start from zero."""
        now = self._sums()
        fresh = {key: n - self._drained.get(key, 0) for key, n in now.items()}
        self._drained = now
        return fresh

    def _sums(self) -> _Sums:
        if "event_counts" not in self._kernel.maps:
            return {}
        kinds = tuple(EventKind)
        words = memoryview(self._kernel.maps["event_counts"].lookup(_ZERO) or b"").cast("Q")
        sums: _Sums = {}
        for kind, program in zip(kinds, EVENT_PROGRAMS, strict=True):
            if program in self._kernel.programs:
                sums[kind, _SENT] = sum(words[kind.position :: 2 * len(kinds)])
                sums[kind, _FULL] = sum(words[len(kinds) + kind.position :: 2 * len(kinds)])
                sums[kind, _MISSED] = program_info(self._kernel.programs[program]).misses
        return sums


def fill(counts: Counts, sums: _Sums) -> None:
    """Put the sums into the counts of a source."""
    counts.events = {kind: n for (kind, what), n in sums.items() if what == _SENT}
    counts.events_dropped = {key: n for key, n in sums.items() if key[1] != _SENT}
