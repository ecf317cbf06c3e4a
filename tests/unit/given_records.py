"""Records that a test gives, with the interface of those that are observed."""

from __future__ import annotations

from exporter.config.options import Filter
from exporter.library.processes import Processes, Totals
from exporter.model import Mode, Outcome
from exporter.records.record import Record


class Given(Processes):
    def __init__(self, *batches: list[Record], wanted: Filter | None = None, keep: int = 0, ends: bool = True) -> None:
        super().__init__(wanted, keep)
        self._batches = batches
        self._ends = ends
        self.totals = Totals(dict.fromkeys(Outcome, 0), 0, 0, 0, 0, 0, 0, {}, 1.0, Mode.EBPF_CORE)

    @property
    def description(self) -> str:
        return "given"

    def counts(self) -> Totals:
        return self.totals

    def give(self, *batch: Record) -> None:
        self._inbox.offer(batch)

    def _open(self) -> None:
        for batch in self._batches:
            self._inbox.offer(batch)
        if self._ends:
            self._inbox.close()

    def _close(self) -> None:
        pass

    def _missing(self) -> int:
        return 0
