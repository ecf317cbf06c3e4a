"""A source that sees what it is told to see."""

from __future__ import annotations

from exporter.model import NS, Mode, RuntimeScale, SourceFailed
from exporter.model.counts import Counts
from exporter.model.origins import Origins
from exporter.sources.base import Source
from exporter.sources.tally import Tally

SCALE = RuntimeScale(NS, (1000, NS))


class FakeSource(Source):
    """Counts as every source in user space does."""

    def __init__(self, mode: Mode = Mode.NETLINK, scale: RuntimeScale = SCALE) -> None:
        self.mode = mode
        self.tally = Tally(scale)
        self.broken = False
        self.stopped = False
        self.pending = 0
        """Processes whose CPU is to come."""

    def start(self, *, standby: bool = False) -> None:
        if standby:
            self.tally.standby()

    def count_from(self, from_ns: int) -> None:
        self._check()
        self.tally.count_from(from_ns)

    def count_until(self, until_ns: int) -> None:
        self._check()
        self.tally.count_until(until_ns)

    def peek(self) -> Counts:
        self._check()
        return self.tally.peek()

    def origins(self) -> Origins:
        self._check()
        return self.tally.origins()

    def drain(self) -> Counts:
        self._check()
        return self.tally.drain()

    def clones(self) -> int:
        return self.tally.clones

    def cpu_pending(self) -> int:
        self._check()
        return self.pending

    def stop(self) -> None:
        self.stopped = True

    def _check(self) -> None:
        if self.broken:
            raise SourceFailed("it broke")
