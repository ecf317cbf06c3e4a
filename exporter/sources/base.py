"""The one interface that every way of seeing processes has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import ClassVar

from exporter.model import Gauges, Mode
from exporter.model.counts import Counts
from exporter.model.ends import Ends
from exporter.records.record import Record

Publish = Callable[[Sequence[Record]], None]


class Source(ABC):
    """Sees processes and keeps counts of them until they are drained.

    The supervisor calls `start` once, then `swap_maps` and `drain` in turn for as long as it runs, `stop` once, and after that one
    more `drain`. A scrape calls `peek`, `gauges` and `clones` from another thread; the caller holds one lock around `drain` and `peek`.

    At a switch two sources run for a moment, so that no process ends unseen. The old one lists the ends that it counts, the new one lists
    them instead of counting; what only the new one saw is then added. All else is cut at one moment, by the events' own times. All
    methods may raise `SourceFailed` but `start`, `clones`, `stop` and `about`.
    """

    mode: Mode
    immediate: ClassVar[bool] = True
    """Whether it tells of a clone as it happens; a scan finds it later."""

    @abstractmethod
    def start(self, *, quiet: bool = False) -> None:
        """Begin to see processes, or raise `ModeUnavailable`, leaving nothing behind.

        A quiet source lists ends and counts nothing, until it is told to `count_from` and to `join`.
        """

    @abstractmethod
    def list_ends(self, *, on: bool) -> None:
        """From now on, list each end that is counted (another source is about to start), or no more.

        Where CPU is known at the end, that of a listed one is not counted: which source counts it is settled later, and without another
        one it is this one, when it is to list no more.
        """

    @abstractmethod
    def cut(self, from_ns: int, until_ns: int) -> None:
        """Count what is not an end only where it happened in this time, of the monotonic clock."""

    @abstractmethod
    def listed(self) -> Ends:
        """The ends listed so far; complete once the source has been stopped."""

    @abstractmethod
    def join(self, counted: Ends) -> Ends:
        """End being quiet: count from now on, but nothing that is in `counted`. Returns what was listed until now."""

    @abstractmethod
    def peek(self) -> Counts:
        """What was seen since the last drain. Changes nothing: two calls in a row differ only by what happened between them."""

    @abstractmethod
    def drain(self) -> Counts:
        """Hand over what was seen since the last drain, and begin anew. Nothing is in two drains, nothing in none.

        Raises `SourceFailed` where the source has broken; what it saw until then comes with the drain after `stop`.
        """

    @abstractmethod
    def clones(self) -> int:
        """Clones (processes and threads) seen since `start`. Cheap."""

    @abstractmethod
    def stop(self) -> None:
        """See nothing more and give back what the machine lent. What was seen stays until it is drained. May be called twice."""

    def swap_maps(self, names: Collection[bytes]) -> None:  # noqa: B027 - most have nothing slow
        """The slow part of a drain, done before it and without the lock. `names` are to be kept apart, however many others arrive."""

    def publish(self, to: Publish, *, live: bool) -> None:  # noqa: B027 - a source may know no single processes
        """From now on, hand records of single short processes to `to`, from a thread of the source: at once if `live`, else when it suits.

        Called after `start`, and again when `live` changes. A source that knows no single processes does nothing.
        """

    @property
    def cpu_after_exit(self) -> bool:
        """Whether CPU is counted some time after the end, by the source itself."""
        return False

    def cpu_pending(self) -> int:
        """Ended processes whose CPU may still come."""
        return 0

    def gauges(self) -> Gauges:
        """What this source can say of now."""
        return Gauges()

    def about(self) -> str:
        """What a person who asks for a diagnosis should know of it here."""
        return ""

    def counts_host(self) -> bool:
        """Whether the clones seen and the kernel's own count are of the same processes."""
        return True
