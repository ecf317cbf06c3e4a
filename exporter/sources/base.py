"""The interface of all sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

from exporter.model import Gauges, Mode
from exporter.model.counts import Counts
from exporter.model.dimensions import Tracked
from exporter.model.events import NOT_IN_THIS_MODE
from exporter.model.origins import Origins
from exporter.records.event import Event
from exporter.records.record import Record

Publish = Callable[[Sequence[Record]], None]
PublishEvents = Callable[[Sequence[Event]], None]


class CpuFollows(Protocol):
    """Consumers of records from a source that knows CPU only some time after the exit."""

    @property
    def at_once(self) -> bool:
        """Whether a consumer needs records at once, without CPU."""

    def arrived(self, ended_ns: Sequence[int]) -> None:
        """Note the times of exits (Unix time in ns) whose records have come."""

    def first(self, batch: Sequence[Record]) -> None:
        """Pass records without CPU to the consumers that need them at once."""

    def completed(self, batch: Sequence[Record]) -> None:
        """Pass the same records, with CPU where it came in time, to the others. It replaces `Publish`."""


class Source(ABC):
    """Observes processes and keeps counts of them until they are drained.

    The supervisor calls `start` once; then `swap_maps`, `origins` and `drain` in turn; then `stop`, `origins` and `drain` once. A scrape
    calls `peek`, `gauges` and `clones` from another thread; the caller holds one lock around `drain` and `peek`.

    Each event counts in one source, by the time of the event itself. At a switch of modes two sources run for a while. The new one starts
    in standby. Then both get one moment that lies shortly ahead: the old one counts until then, the new one counts from then on.

    All methods but `start`, `clones`, `stop` and `about` may raise `SourceFailed`.
    """

    mode: Mode

    @abstractmethod
    def start(self, *, standby: bool = False) -> None:
        """Start to observe, or raise `ModeUnavailable` and release everything. In standby it counts nothing until `count_from`."""

    @abstractmethod
    def count_from(self, from_ns: int) -> None:
        """End standby: count the events from this moment of the monotonic clock on. It lies shortly ahead."""

    @abstractmethod
    def count_until(self, until_ns: int) -> None:
        """Count only the events before this moment of the monotonic clock, also if they are reported later. It lies shortly ahead."""

    @abstractmethod
    def peek(self) -> Counts:
        """Return the counts since the last drain. Changes nothing."""

    @abstractmethod
    def drain(self) -> Counts:
        """Return the counts since the last drain, and start from zero. Each event is in exactly one drain.

        Raises `SourceFailed` if the source has failed; the drain after `stop` returns its remaining counts.
        """

    @abstractmethod
    def clones(self) -> int:
        """Return the clones (processes and threads) counted since `start`. Cheap."""

    @abstractmethod
    def stop(self) -> None:
        """Stop observing, and release everything but the counts. May take seconds; may be called twice."""

    def swap_maps(self, tracked: Tracked) -> None:  # noqa: B027 - most have nothing slow
        """Do the slow part of a drain, before it and without the lock. `tracked` keys keep rows of their own, even if many others come."""

    def origins(self) -> Origins:
        """Return for whom processes ran, since the last call, up to the last `swap_maps`. Without the lock; a last time after `stop`."""
        return Origins()

    def cpu_pending(self) -> int:
        """Return the number of processes whose exit is counted and whose CPU is not yet known."""
        return 0

    def publish(self, to: Publish, *, live: bool, follows: CpuFollows | None = None) -> None:  # noqa: B027 - a source may have no records
        """Pass records of the short processes that it counts to `to`, from its own thread, within 25 ms if `live`.

        A source that knows CPU only after the exit lets records wait for it, up to 250 ms, and then passes them to `follows`, if given.
        Called after `start`, and again when `live` changes. A source without records does nothing.
        """

    def publish_events(self, to: PublishEvents) -> str | None:  # noqa: ARG002 - most have none
        """Pass the wanted events to `to`, from its own thread. Called after `start`; may be called twice.

        Returns why there are none, one sentence; else None.
        """
        return NOT_IN_THIS_MODE

    def gauges(self) -> Gauges:
        """Return the present values of its gauges."""
        return Gauges()

    def about(self) -> str:
        """Return details for `doctor`: how it works on this host."""
        return ""

    def counts_host(self) -> bool:
        """Return whether it observes the same processes that the kernel counts."""
        return True
