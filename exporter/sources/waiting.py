"""Messages of taskstats that wait for the exit events of their threads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from exporter.sources.taskstats import Stats

MAX_WAITING = 1 << 16
"""Most that are held in one generation: an exit event may be lost, and must not cost memory."""


class Waiting:
    """By thread id, in their order: ids are given out again, and an exec in a thread gives it the leader's.

    There are two generations; who still waits when the second one comes has lost its event.
    """

    def __init__(self) -> None:
        self._young: dict[int, list[Stats]] = {}
        self._old: dict[int, list[Stats]] = {}
        self._n_young = 0

    def __len__(self) -> int:
        return sum(map(len, itertools.chain(self._young.values(), self._old.values())))

    def put(self, stats: Stats) -> None:
        """Let a message wait."""
        if self._n_young >= MAX_WAITING:
            self.age()
        self._n_young += 1
        queue = self._young.get(stats.pid)
        if queue is None:
            self._young[stats.pid] = [stats]
        else:
            queue.append(stats)

    def take(self, tid: int, tgid: int) -> Stats | None:
        """The message of a thread that exited."""
        for waiting in (self._young, self._old):
            queue = waiting.get(tid)
            if queue is None and tid != tgid and (queue := waiting.get(tgid)) is not None:
                if queue[0].group_dead:
                    continue
                tid = tgid  # `de_thread` was faster: the leader's exit event bears the id of the thread that took its place
            if queue is not None:
                stats = queue.pop(0)
                if not queue:
                    del waiting[tid]
                self._n_young -= waiting is self._young
                return stats
        return None

    def comm(self, pid: int) -> bytes | None:
        """The name of a thread that has exited, as far as is known already."""
        queue = self._young.get(pid) or self._old.get(pid)
        return queue[0].comm if queue else None

    def age(self) -> None:
        """Begin a new generation, and drop the oldest."""
        self._young, self._old, self._n_young = {}, self._young, 0

    def overdue(self) -> Iterator[Stats]:
        """The old ones."""
        return itertools.chain.from_iterable(self._old.values())
