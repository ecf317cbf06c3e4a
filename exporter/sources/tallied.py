"""The base of all sources that count in user space: a thread of its own fills a tally."""

from __future__ import annotations

import threading
from collections.abc import Callable

from exporter.model import ModeUnavailable, SourceFailed
from exporter.model.counts import Counts
from exporter.model.origins import Origins
from exporter.process.shortage import advice
from exporter.sources.base import CpuFollows, Publish, Source
from exporter.sources.tally import Tally


class TallySource(Source):
    """The thread sets `_failure` if it fails, and ends when `_stopping` is set."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: str | None = None

    def count_from(self, from_ns: int) -> None:
        self._check()
        self._tally.count_from(from_ns)

    def count_until(self, until_ns: int) -> None:
        self._check()
        self._tally.count_until(until_ns)

    def publish(self, to: Publish, *, live: bool, follows: CpuFollows | None = None) -> None:  # noqa: ARG002 - found records are complete
        self._tally.publish(to)

    def peek(self) -> Counts:
        return self._tally.peek()

    def drain(self) -> Counts:
        self._check()
        return self._tally.drain()

    def origins(self) -> Origins:
        return self._tally.origins()

    def clones(self) -> int:
        return self._tally.clones

    def _release(self) -> None:
        """Release what `start` acquired. Called after the thread has ended or `start` has failed; may be called again."""

    def _start_thread(self, run: Callable[[], None]) -> None:
        """Start the thread. If no more threads are allowed, release everything and raise `ModeUnavailable`."""
        thread = threading.Thread(target=run, name=self.mode.value, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._release()
            raise ModeUnavailable(advice(error) or str(error)) from error
        self._thread = thread

    def _check(self) -> None:
        if self._failure is not None and not self._stopping.is_set():
            raise SourceFailed(self._failure)
