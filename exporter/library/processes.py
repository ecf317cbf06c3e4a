"""The interface of everything that tells of short processes: this host, another exporter, a file."""

from __future__ import annotations

import select
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from exporter.config.options import Filter
from exporter.library.inbox import EventInbox, Inbox, RecordInbox
from exporter.model import Mode, Outcome
from exporter.model.events import EventKind
from exporter.records.event import Event
from exporter.records.filters import compiled
from exporter.records.record import Record

T = TypeVar("T")


class Ended(Exception):
    """No more records will come. The message is one sentence that says why."""


@dataclass(frozen=True, slots=True)
class Totals:
    """All processes, short or not, since watching began; those of another exporter since it started. A filter does not change them."""

    exits: Mapping[Outcome, int]
    """Processes that exited."""
    short: int
    """Those that were short."""
    cpu_ns: int
    """CPU time of processes that exited."""
    short_cpu_ns: int
    forks: int
    """Processes that were started."""
    threads: int
    """Threads that were started in existing processes."""
    execs: int
    lost: Mapping[str, int]
    """What could not be observed, by the reasons in docs/metrics.md."""
    capture_ratio: float | None
    """Fraction of the clones counted by the kernel that were observed, in the last minute. None: not known."""
    mode: Mode | None
    """The mode that observes; None while none works."""

    @property
    def failed(self) -> int:
        """Exits with an error or by a signal."""
        return self.exits[Outcome.ERROR] + self.exits[Outcome.SIGNAL]


class Reading(Generic[T]):
    """Items as they come, from a thread of their own.

    An iterator pops items: each is returned once. All methods can be called from any thread, but only one may iterate.
    """

    def __init__(self, inbox: Inbox[T]) -> None:
        self._items = inbox
        self.failure: str | None = None
        """Why no more items will come, one sentence; None while they do."""

    def __iter__(self) -> Iterator[T]:
        """Yield items as they come; wait for more until `stop`. Raises `Ended` if no more will come for another reason."""
        for batch in self.batches():
            yield from batch

    def within(self, seconds: float) -> Iterator[T]:
        """Yield items as they come, for so long."""
        for batch in self.batches(seconds):
            yield from batch

    def batches(self, seconds: float | None = None) -> Iterator[list[T]]:
        """Yield lists of the items that came together."""
        until = None if seconds is None else time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        more = True
        while more:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return
            poll.poll(None if left is None else left * 1000)
            batch, more = self.pop()
            if batch:
                yield batch
        if self.failure is not None:
            raise Ended(self.failure)

    def fileno(self) -> int:
        """Return a descriptor, for `select` and event loops: it is readable when `pop` has something to return."""
        return self._items.fd

    def pop(self) -> tuple[list[T], bool]:
        """Return the items that came since the last call, without waiting, and whether more may come."""
        return self._items.pop_all()


class Records(Reading[Record], ABC):
    """Records. Use it in a `with` statement."""

    def __init__(self, wanted: Filter | None, keep: int) -> None:
        self._inbox = RecordInbox(None if wanted is None else compiled(wanted), keep)
        super().__init__(self._inbox)

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()
        self._inbox.release()

    def recent(self, most: int | None = None) -> list[Record]:
        """Return the last records, or at most so many, the oldest first. They stay for other calls, and for iteration."""
        return self._inbox.recent(most)

    @property
    def dropped(self) -> int:
        """Number of short processes whose records did not come: they exited faster than they were read, or popped."""
        return self._missing() + self._inbox.dropped()["slow"]

    def stop(self) -> None:
        """Stop observing. What came before can still be popped; iterators end after it."""
        self._close()
        self._inbox.close()

    @property
    @abstractmethod
    def description(self) -> str:
        """How it observes, for people: part of a sentence."""

    @abstractmethod
    def _open(self) -> None:
        """Begin to offer records to the inbox."""

    @abstractmethod
    def _close(self) -> None:
        """Stop; all records seen so far are in the inbox when this returns. It may be called again."""

    @abstractmethod
    def _missing(self) -> int:
        """Return the number of records that did not reach the inbox."""


class Events(Reading[Event]):
    """Events of processes, as they happen, while `Processes` observes."""

    def __init__(self, inbox: EventInbox, missing: Callable[[], Mapping[EventKind, int]]) -> None:
        super().__init__(inbox)
        self._inbox = inbox
        self._missing = missing

    @property
    def dropped(self) -> dict[EventKind, int]:
        """Number of events that did not come, by kind: they happened faster than they were read, or popped."""
        dropped = Counter(self._missing())
        for (kind, _), n in self._inbox.dropped_events().items():
            dropped[kind] += n
        return dict(dropped)


class Processes(Records):
    """Short processes, as they exit. It observes until the end of the `with` statement."""

    @property
    def events(self) -> Events:
        """Events of all processes, short or not. Raises `ValueError` if none were asked for."""
        raise ValueError("no events were asked for: watch(events=...)")

    @abstractmethod
    def counts(self) -> Totals:
        """Return the totals as of now. Raises `Ended` if they cannot be had."""
