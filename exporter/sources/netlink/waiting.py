"""Queues: taskstats messages that wait for exit events, and execs that wait for a comm."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from exporter.kernel.taskstats import Stats
from exporter.sources.tally import Tally

MAX_WAITING = 1 << 16
"""Maximum number of messages in a generation: lost exit events must not use memory."""


class Waiting:
    """Taskstats messages by TID. Each TID has a queue: TIDs are reused, and an exec gives a thread the TID of the leader.

    There are two generations. Messages that are still there when the older one is dropped have lost their exit event.
    """

    def __init__(self) -> None:
        self._young: dict[int, list[Stats]] = {}
        self._old: dict[int, list[Stats]] = {}
        self._n_young = 0

    def __len__(self) -> int:
        return sum(map(len, itertools.chain(self._young.values(), self._old.values())))

    def put(self, stats: Stats) -> None:
        """Add a message."""
        if self._n_young >= MAX_WAITING:
            self.age()
        self._n_young += 1
        queue = self._young.get(stats.pid)
        if queue is None:
            self._young[stats.pid] = [stats]
        else:
            queue.append(stats)

    def pop(self, tid: int, tgid: int) -> Stats | None:
        """Remove and return the message of a thread; None if there is none."""
        for waiting in (self._young, self._old):
            queue = waiting.get(tid)
            if queue is None and tid != tgid and (queue := waiting.get(tgid)) is not None:
                if queue[0].group_dead:
                    continue
                tid = tgid  # after `de_thread`, the exit event of the old leader has the TID of the thread that replaced it
            if queue is not None:
                stats = queue.pop(0)
                if not queue:
                    del waiting[tid]
                self._n_young -= waiting is self._young
                return stats
        return None

    def comm(self, pid: int) -> bytes | None:
        """Return the comm of a thread that has exited, if its message is here."""
        queue = self._young.get(pid) or self._old.get(pid)
        return queue[0].comm if queue else None

    def age(self) -> None:
        """Start a new generation, and drop the older one."""
        self._young, self._old, self._n_young = {}, self._young, 0

    def overdue(self) -> Iterator[Stats]:
        """Return the messages of the older generation."""
        return itertools.chain.from_iterable(self._old.values())


class Execs:
    """Execs without a comm, by PID. In a storm, a process exits before its comm can be read; taskstats reports it at the exit."""

    def __init__(self, tally: Tally) -> None:
        """Count execs in `tally` when their comm is known."""
        self._tally = tally
        self._at_ns: dict[int, list[int]] = {}
        self._fresh: dict[int, int] = {}
        """Time of the last exec of each process that `older` has not returned yet, in order."""

    def __bool__(self) -> bool:
        """Return whether there are execs that `older` has not returned yet."""
        return bool(self._fresh)

    def put(self, tgid: int, at_ns: int) -> None:
        """Add an exec."""
        self._at_ns.setdefault(tgid, []).append(at_ns)
        self._fresh.pop(tgid, None)
        self._fresh[tgid] = at_ns

    def older(self, until_ns: int) -> list[int]:
        """Return the PIDs whose last exec was before `until_ns`, each only once."""
        older = list(itertools.takewhile(lambda tgid: self._fresh[tgid] < until_ns, self._fresh))
        for tgid in older:
            del self._fresh[tgid]
        return older

    def named(self, tgid: int, comm: bytes) -> None:
        """Count the execs of a process, with this comm."""
        self._fresh.pop(tgid, None)
        for at_ns in self._at_ns.pop(tgid, ()):
            self._tally.execed(comm, at_ns)
