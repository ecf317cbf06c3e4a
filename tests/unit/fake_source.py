"""A source that sees what it is told to see."""

from __future__ import annotations

from exporter.model import NS, Mode, RuntimeScale, SourceFailed
from exporter.model.counts import Counts
from exporter.model.ends import Ends
from exporter.sources.base import Source
from exporter.sources.tally import Tally

SCALE = RuntimeScale(NS, (1000, NS))


class FakeSource(Source):
    """Counts as every source in user space does."""

    def __init__(self, mode: Mode = Mode.NETLINK, scale: RuntimeScale = SCALE) -> None:
        self.mode = mode
        self.tally = Tally(scale)
        self.broken = False

    def start(self, *, quiet: bool = False) -> None:
        if quiet:
            self.tally.quiet()

    def list_ends(self, *, on: bool) -> None:
        self.tally.list_ends(on=on)

    def cut(self, from_ns: int, until_ns: int) -> None:
        self.tally.cut(from_ns, until_ns)

    def listed(self) -> Ends:
        if self.broken:
            raise SourceFailed("it broke")
        return self.tally.listed()

    def join(self, counted: Ends) -> Ends:
        return self.tally.join(counted)

    def peek(self) -> Counts:
        return self.tally.peek()

    def drain(self) -> Counts:
        if self.broken:
            raise SourceFailed("it broke")
        return self.tally.drain()

    def clones(self) -> int:
        return self.tally.clones

    def stop(self) -> None:
        pass
