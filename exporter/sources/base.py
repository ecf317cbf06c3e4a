"""The one interface that every way of seeing processes has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import ClassVar

from exporter.model import Counts, Gauges, Mode


class Source(ABC):
    """Sees processes and keeps counts of them until they are drained.

    The supervisor calls `start` once, then `rotate` and `drain` in turn for as long as it runs, `stop` once, and after that one
    more `drain`. A scrape calls `peek`, `gauges` and `clones` from another thread; the caller holds one lock around `drain` and `peek`.
    """

    mode: Mode
    immediate: ClassVar[bool] = True
    """Whether it tells of a clone as it happens; a scan finds it later."""

    @abstractmethod
    def start(self) -> None:
        """Begin to see processes, or raise `Unusable`, leaving nothing behind."""

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

    def rotate(self, names: Collection[bytes]) -> None:  # noqa: B027 - most have nothing slow
        """The slow part of a drain, done before it and without the lock. `names` are to be kept apart, however many others arrive."""

    def gauges(self) -> Gauges:
        """What this source can say of now."""
        return Gauges()

    def about(self) -> str:
        """What a person who asks for a diagnosis should know of it here."""
        return ""

    def counts_host(self) -> bool:
        """Whether the clones seen and the kernel's own count are of the same processes."""
        return True
