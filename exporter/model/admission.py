"""Which keys of a dimension get series, and which ones lose theirs.

A series belongs to the keys that matter now.
- A part of the places (`spare`) is kept for keys that are plainly busier than one that has a series. The others are free to any key.
- A key without an event for ten minutes gives its place to any other.
- Where a plainly busier key takes one of the spare places, the least active key retires: its series stops and stays for a while, so that
  every increment in it is scraped, and then goes.
- A share belongs to the keys that fail most: they don't retire, and a failing key need not be busier than those that don't fail.
- At most a share of the places belongs to one holder, such as a user, as long as keys of others want them.

"Plainly busier" is more than twice as many events in the last minutes, and two more: so that no two keys take a place from each other
again and again.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic

from exporter.model.activity import Busyness
from exporter.model.counts import Key


@dataclass(frozen=True, slots=True)
class Contender(Generic[Key]):
    """A key, and what decides whether it has a series."""

    key: Key
    labels: tuple[str, ...]
    busy: Busyness
    holder: Hashable | None = None
    """To whom it belongs; None where that is not known."""
    last_ns: int = 0
    """Its last event, if it has a series."""
    is_settled: bool = False
    """Its series was shown long enough at its true value to retire."""
    is_idle: bool = False
    has_place: bool = False
    """It retired, and its series is still there."""


@dataclass(slots=True)
class Decision(Generic[Key]):
    admitted: dict[Key, Contender[Key]] = field(default_factory=dict)
    retired: set[Key] = field(default_factory=set)
    dropped: set[Key] = field(default_factory=set)
    """Idle ones, which go at once."""


class Places:
    """How many series there may be, and how they are shared out."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.spare = max(cap // 10, 1) if cap > 2 else 0
        self.full = cap - self.spare
        """Series that grow, unless busier keys just came."""
        self.failing = cap // 4
        """Series of the keys that fail most, which don't retire."""
        self.share = max(cap // 2, 1)
        """Series of one holder, where others want them."""


def decide(places: Places, growing: list[Contender[Key]], lingering: int, newcomers: list[Contender[Key]]) -> Decision[Key]:
    """Decide who gets a series and who loses it.

    `newcomers` come in the order in which places are given. `lingering` series have retired and are still there.
    """
    shareout = _Shareout(places, growing, lingering)
    waiting = newcomers
    for give in (shareout.give_free_to_others, shareout.give_free, shareout.give_idle, shareout.give_spare):
        waiting = [each for each in waiting if not give(each)]
    shareout.retire_surplus()
    return shareout.decision


class _Shareout(Generic[Key]):
    """One decision under way."""

    def __init__(self, places: Places, growing: list[Contender[Key]], lingering: int) -> None:
        self.decision = Decision[Key]()
        self._places = places
        self._free = places.cap - len(growing) - lingering
        self._growing = len(growing)
        self._held = Counter(each.holder for each in growing if each.holder is not None)
        self._idle = sorted((each for each in growing if each.is_idle), key=lambda each: (each.last_ns, each.labels), reverse=True)
        self._least_active = sorted((each for each in growing if not each.is_idle), key=lambda each: (each.busy, each.labels))
        failing = heapq.nlargest(places.failing, (each for each in growing if each.busy.failures), key=_failures)
        self._failing = {each.key: each.busy.failures for each in failing}

    def give_free_to_others(self, newcomer: Contender[Key]) -> bool:
        """Give it a place that nobody has, unless its holder has its share."""
        return not self._has_share(newcomer.holder) and self.give_free(newcomer)

    def give_free(self, newcomer: Contender[Key]) -> bool:
        """Give it a place that nobody has."""
        if self._growing >= self._places.full or not self._has_room(newcomer):
            return False
        self._admit(newcomer)
        return True

    def give_idle(self, newcomer: Contender[Key]) -> bool:
        """Give it the place of the key that has been idle for longest."""
        if not self._idle:
            return False
        idle = self._idle.pop()
        self.decision.dropped.add(idle.key)
        self._leaves(idle)
        self._free += 1
        self._admit(newcomer)
        return True

    def give_spare(self, newcomer: Contender[Key]) -> bool:
        """Give it one of the spare places if it matters more than a key that has a series, and retire that."""
        has_share = self._has_share(newcomer.holder)
        if not self._has_room(newcomer, keep=self._places.spare // 2 if has_share else 0):
            return False
        # each newcomer would go through all series, at each scrape; mostly no holder has its share
        crowds = not has_share and any(map(self._has_share, self._held))
        crowding = crowds and [each for each in self._least_active if self._has_share(each.holder)]
        rivals = crowding or ([each for each in self._least_active if each.holder == newcomer.holder] if has_share else self._least_active)
        retiring = next(filter(self._may_retire, rivals), None)
        least = retiring or next(iter(rivals), None)
        if least is None or not (crowding or _is_plainly_more(newcomer.busy.events, least.busy.events) or self._fails_most(newcomer)):
            return False
        if retiring is not None:
            self._retire(retiring)
        self._admit(newcomer)
        return True

    def retire_surplus(self) -> None:
        """Retire the least active where more came than could retire at that time."""
        for each in list(self._least_active):
            if self._growing <= self._places.full:
                break
            if self._may_retire(each):
                self._retire(each)

    def _has_room(self, newcomer: Contender[Key], keep: int = 0) -> bool:
        return newcomer.has_place or self._free > keep

    def _has_share(self, holder: Hashable | None) -> bool:
        return holder is not None and self._held[holder] >= self._places.share

    def _may_retire(self, each: Contender[Key]) -> bool:
        return each.is_settled and each.key not in self._failing

    def _fails_most(self, newcomer: Contender[Key]) -> bool:
        full = len(self._failing) >= self._places.failing
        return _is_plainly_more(newcomer.busy.failures, min(self._failing.values(), default=0) if full else 0)

    def _admit(self, newcomer: Contender[Key]) -> None:
        self.decision.admitted[newcomer.key] = newcomer
        self._growing += 1
        self._free -= not newcomer.has_place
        if newcomer.holder is not None:
            self._held[newcomer.holder] += 1

    def _retire(self, each: Contender[Key]) -> None:
        self.decision.retired.add(each.key)
        self._least_active.remove(each)
        self._leaves(each)

    def _leaves(self, each: Contender[Key]) -> None:
        self._growing -= 1
        if each.holder is not None:
            self._held[each.holder] -= 1


def _is_plainly_more(events: int, than: int) -> bool:
    return events > 2 * than + 2


def _failures(each: Contender[Key]) -> int:
    return each.busy.failures
