"""What waits for something that is still to come: taskstats for exit events, and execs for the names that they gave."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from exporter.kernel.taskstats import Stats
from exporter.sources.tally import Tally

MAX_WAITING = 1 << 16
"""Most that are held in one generation: an exit event may be lost, and must not cost memory."""


class Waiting:
    """Messages of taskstats by thread id, in their order: ids are given out again, and an exec in a thread gives it the leader's.

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

    def pop(self, tid: int, tgid: int) -> Stats | None:
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


class Execs:
    """Execs of processes by their id. In a storm the process is gone before its name can be read, and taskstats tells it at the end."""

    def __init__(self, tally: Tally) -> None:
        """Count them there once they have names."""
        self._tally = tally
        self._at_ns: dict[int, list[int]] = {}
        self._fresh: dict[int, int] = {}
        """The last of each process that nobody has asked for yet, in their order."""

    def __bool__(self) -> bool:
        """Whether there are some that nobody has asked for."""
        return bool(self._fresh)

    def put(self, tgid: int, at_ns: int) -> None:
        """Let one wait."""
        self._at_ns.setdefault(tgid, []).append(at_ns)
        self._fresh.pop(tgid, None)
        self._fresh[tgid] = at_ns

    def older(self, until_ns: int) -> list[int]:
        """Processes whose last one was before `until_ns`, each only once."""
        older = list(itertools.takewhile(lambda tgid: self._fresh[tgid] < until_ns, self._fresh))
        for tgid in older:
            del self._fresh[tgid]
        return older

    def named(self, tgid: int, comm: bytes) -> None:
        """Count those of a process."""
        self._fresh.pop(tgid, None)
        for at_ns in self._at_ns.pop(tgid, ()):
            self._tally.execed(comm, at_ns)
