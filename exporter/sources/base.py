"""The one interface that every way of seeing processes has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from exporter.model import Gauges, Mode
from exporter.model.counts import Counts
from exporter.model.dimensions import Tracked
from exporter.records.record import Record

Publish = Callable[[Sequence[Record]], None]


class Source(ABC):
    """Sees processes and keeps counts of them until they are drained.

    The supervisor calls `start` once, then `swap_maps` and `drain` in turn for as long as it runs, `stop` once, and after that one
    more `drain`. A scrape calls `peek`, `gauges` and `clones` from another thread; the caller holds one lock around `drain` and `peek`.

    Each event belongs to one source, by the time that the event itself bears. At a switch of modes two sources run for a while: the new
    one starts in standby, then both are told one moment shortly ahead, until which the one counts and from which on the other does.

    All methods may raise `SourceFailed` but `start`, `clones`, `stop` and `about`.
    """

    mode: Mode

    @abstractmethod
    def start(self, *, standby: bool = False) -> None:
        """Begin to see processes, or raise `ModeUnavailable`, leaving nothing behind. In standby nothing counts until `count_from`."""

    @abstractmethod
    def count_from(self, from_ns: int) -> None:
        """End standby: count what happens from this moment of the monotonic clock on. It lies shortly ahead."""

    @abstractmethod
    def count_until(self, until_ns: int) -> None:
        """Count only what happens before this moment of the monotonic clock, though the news may come later. It lies shortly ahead."""

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
        """Clones (processes and threads) counted since `start`. Cheap."""

    @abstractmethod
    def stop(self) -> None:
        """See nothing more and give back what the machine lent; may take seconds, and may be called twice.

        What was seen stays until it is drained.
        """

    def swap_maps(self, tracked: Tracked) -> None:  # noqa: B027 - most have nothing slow
        """The slow part of a drain, done before it and without the lock. Keys that are `tracked` stay apart, however many others come."""

    def cpu_pending(self) -> int:
        """Processes whose exit is counted, and whose CPU is still to come."""
        return 0

    def publish(self, to: Publish, *, live: bool) -> None:  # noqa: B027 - a source may know no single processes
        """From now on, hand records of the short processes that it counts to `to`, from a thread of its own: at once if `live`.

        Called after `start`, and again when `live` changes. A source that knows no single processes does nothing.
        """

    def gauges(self) -> Gauges:
        """What this source can say of now."""
        return Gauges()

    def about(self) -> str:
        """What a person who asks for a diagnosis should know of it here."""
        return ""

    def counts_host(self) -> bool:
        """Whether the clones seen and the kernel's own count are of the same processes."""
        return True
