"""Thread groups as the proc connector tells of them, with what taskstats adds.

A process ends with the exit event of its last thread. The kernel counts threads (`signal->live`), and so does this: a thread's fork is
told before it runs, and so before the exit of whoever forked it, hence in the order of one socket no count reaches zero early. Threads
are counted, not known by their ids, since an exec in a thread that is not the leader swaps the two (`de_thread`). That holds for a
process *followed* from its fork on. Of one *found* in `/proc`, at the start or after events were lost, the count may be wrong by what
happened while it was read; then it is over once taskstats tells of the last thread (AGROUP), or without that once `/proc` says so. It
ends there if the count agrees, else a moment later: the status that a core was dumped is that of one thread, which may be told of last.

Taskstats supplies what the events lack: the name, the CPU, and the runtime as of the moment that the other modes call the end; the event
comes after the memory has been given back. A task's taskstats message is sent before its exit event, on another socket. So
whoever reads that socket until it is empty after reading the events has the message of every exit among them, and nothing waits.

Rejected: to end a process at the message with AGROUP. It has no exact time, it says nothing without privilege, and the messages of
threads that leave at the same moment may come after it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

from exporter.kernel.procfs import Procfs, Stat
from exporter.kernel.taskstats import Stats
from exporter.kernel.wait_status import CORE_DUMPED, with_status
from exporter.model import KERNEL_THREADS, NS, UNKNOWN_COMM, Lost
from exporter.model.exits import ProcessExit
from exporter.sources.netlink.waiting import Execs, Waiting
from exporter.sources.tally import Tally

KTHREADD = 2
SAME_START_NS = NS // 10
LATE_NS = NS
"""By then the exit event has come that follows a taskstats message, or that was sent before a look at `/proc`."""


@dataclass(slots=True, eq=False)
class Group:
    """A process that is alive, as far as is known."""

    start_ns: int
    parent: int
    comm: bytes | None
    """None where it has to be read, or will be told at the exit."""
    live: int = 1
    found: bool = False
    lost: bool = False
    """Whether its fork was not seen: then it is counted as lost already."""
    threaded: bool = False
    cpu_us: int = 0
    cpu_pending: bool = False
    core_dump: int = 0
    """The bit of the status. The thread that dumped has it, and those that waited for it meanwhile leave after it without."""
    last: Stats | None = None
    """What taskstats said of the last thread."""


class Exit(NamedTuple):
    """An exit event, of the last thread so far."""

    at_ns: int
    code: int
    parent: int
    """0 if it was reaped already, or the kernel does not say."""


class Groups:
    """All processes by their id; bounded by how many the kernel has."""

    def __init__(self, tally: Tally, procfs: Procfs, *, taskstats: bool = False) -> None:
        self.taskstats = taskstats
        self.clones = 0
        """Forks and threads told by the kernel, whether counted or not."""
        self.alive: dict[int, Group] = {}
        self.waiting = Waiting()
        """Taskstats of threads whose exit events are to come."""
        self._tally = tally
        self._procfs = procfs
        self._execs = Execs(tally)
        self._awaiting_threads: dict[int, tuple[Exit, Group]] = {}
        """Processes that are over, while threads of theirs are still to be told of, as far as is known; with the exit told last."""
        self._suspects: dict[int, Group] = {}

    def forked(self, at_ns: int, parent_tid: int, parent: int, tid: int, tgid: int) -> None:
        """A process or a thread is about to run."""
        self.clones += 1
        if tid != tgid:
            self._tally.threads(1, at_ns)
            group = self.alive.get(tgid)
            if group is not None:
                group.live += 1
                group.threaded = True
            return
        self._tally.forked(at_ns)
        old = self.alive.get(tgid)
        if old is not None and at_ns - old.start_ns > SAME_START_NS:
            self._lost_exit(tgid, old)
        parent_group = self.alive.get(parent)
        comm = None
        if parent == KTHREADD:
            comm = KERNEL_THREADS
        elif parent_group is not None and parent_tid == parent:  # another thread may have another name
            comm = parent_group.comm
        self.alive[tgid] = Group(at_ns, parent, comm)

    def execed(self, at_ns: int, tgid: int) -> None:
        """A process runs another program."""
        group = self.alive.get(tgid)
        if group is not None and self.taskstats:
            group.comm = None
            self._execs.put(tgid, at_ns)
            return
        comm = self._procfs.comm(tgid)
        self._tally.execed(comm or UNKNOWN_COMM, at_ns)
        if group is not None:
            group.comm = comm

    def renamed(self, tid: int, tgid: int, comm: bytes) -> None:
        """A thread has another name; a process's is that of its leader."""
        group = self.alive.get(tgid)
        if tid == tgid and group is not None and group.comm is not KERNEL_THREADS:
            self._set_comm(tgid, group, comm)

    def exited(self, at_ns: int, tid: int, tgid: int, code: int, parent: int) -> None:
        """A thread has gone."""
        stats = self.waiting.pop(tid, tgid) if self.taskstats else None
        group = self.alive.get(tgid)
        if group is None:
            if stats is not None and stats.group_dead:
                self._exited_unknown(at_ns, stats)
            return
        if stats is not None:
            self._add_stats(group, stats, leads=tid == tgid)
        else:
            group.cpu_pending = True
        group.core_dump |= code & CORE_DUMPED
        group.live -= 1
        is_over = group.last is not None or (self._has_gone(tgid) if group.found else group.live <= 0)
        if not is_over:
            return
        exit_event = Exit(at_ns, code, parent)
        last_is_to_come = group.found and group.last is None and stats is not None and stats.tgid
        if group.live > 0 or last_is_to_come:
            self._awaiting_threads[tgid] = exit_event, group
        else:
            self._exited(tgid, group, exit_event, stats)

    def name_execs(self, until_ns: int) -> bool:
        """Read the names of those that exec'ed before `until_ns` and are alive; returns whether younger ones are left."""
        for tgid in self._execs.older(until_ns):
            if (comm := self._procfs.comm(tgid)) is not None:
                self._set_comm(tgid, self.alive[tgid], comm)
        return bool(self._execs)

    def scan_proc(self, *, lost: bool) -> None:
        """Enter what `/proc` lists. `lost` says that events were: then what is listed is of unknown forks, and what is not has gone."""
        ahead_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        tick_ns = self._procfs.tick_ns
        gone = dict(self.alive)
        self.waiting.age()
        for pid in self._procfs.pids():
            stat = self._procfs.stat(pid)
            group = gone.pop(pid, None)
            if isinstance(stat, Lost):
                if stat is not Lost.VANISHED and group is None and not lost:
                    self._tally.lose(stat)
                continue
            start_ns = stat.start_ticks * tick_ns + tick_ns // 2 - ahead_ns
            if group is not None and start_ns - group.start_ns <= SAME_START_NS:  # earlier: it was suspended since
                group.found, group.live, group.threaded = True, stat.threads, group.threaded or stat.threads > 1
                if stat.ended:
                    gone[pid] = group
                continue
            if group is not None:
                self._lost_exit(pid, group)
            if not stat.ended:
                self._enter(stat, start_ns, lost=lost)
        self.suspect(gone)

    def suspect(self, gone: dict[int, Group]) -> None:
        """These are not in `/proc` any more: if their exits are not reported soon, they were lost."""
        self._suspects |= gone

    def reconcile(self, now_ns: int, *, lost: bool = False) -> None:
        """Give up what waited since the last time: nothing is held for a process that is gone. `lost` says that events were."""
        for tgid, (exit_event, group) in list(self._awaiting_threads.items()):
            if now_ns - exit_event.at_ns > LATE_NS:
                del self._awaiting_threads[tgid]
                if self.alive.get(tgid) is group:
                    self._exited(tgid, group, exit_event, group.last)
        suspects, self._suspects = self._suspects, {}
        if lost:
            for stats in self.waiting.overdue():
                if stats.group_dead:
                    self._exited_without_event(now_ns, suspects.pop(stats.tgid, None), stats)
        for tgid, group in suspects.items():
            if self.alive.get(tgid) is group:
                self._lost_exit(tgid, group)
        self.waiting.age()

    def _exited_without_event(self, now_ns: int, group: Group | None, stats: Stats) -> None:
        """The exit event was lost, but not what taskstats said."""
        if group is None:
            self._exited_unknown(now_ns, stats)
        elif self.alive.get(stats.tgid) is group:
            self._add_stats(group, stats, leads=stats.pid == stats.tgid or group.comm is None)
            self._exited(stats.tgid, group, Exit(now_ns, stats.exit_code, stats.ppid), stats)

    def finish(self, now_ns: int) -> None:
        """No more events will come: count what is known but for a detail."""
        self.name_execs(now_ns + 1)
        self.reconcile(now_ns + 2 * LATE_NS)
        for tgid in self.alive:
            self._execs.named(tgid, UNKNOWN_COMM)

    def _enter(self, stat: Stat, start_ns: int, *, lost: bool) -> None:
        threaded = stat.threads > 1
        self.alive[stat.pid] = Group(start_ns, stat.ppid, stat.comm, stat.threads, found=True, lost=lost, threaded=threaded)

    def _has_gone(self, tgid: int) -> bool:
        stat = self._procfs.stat(tgid)
        if isinstance(stat, Lost):
            return stat is Lost.VANISHED
        return stat.ended

    def _add_stats(self, group: Group, stats: Stats, *, leads: bool) -> None:
        group.cpu_us += stats.cpu_us
        group.core_dump |= stats.exit_code & CORE_DUMPED
        if leads and group.comm is not KERNEL_THREADS:
            group.comm = stats.comm
        if stats.group_dead:
            group.last = stats

    def _forget(self, tgid: int) -> None:
        self.alive.pop(tgid, None)
        self._awaiting_threads.pop(tgid, None)

    def _lost_exit(self, tgid: int, group: Group) -> None:
        """Its end was lost."""
        self._forget(tgid)
        if not group.lost:
            self._tally.lose(Lost.OVERRUN)
        self._execs.named(tgid, UNKNOWN_COMM)

    def _exited(self, tgid: int, group: Group, exit_event: Exit, stats: Stats | None) -> None:
        comm, is_unnamed = group.comm, False
        if comm is None:
            comm = self._procfs.comm(tgid)  # it may not be reaped yet
            if is_unnamed := comm is None:
                comm = UNKNOWN_COMM
        self._forget(tgid)
        self._execs.named(tgid, comm)
        at_ns, code, parent = exit_event
        runtime_ns = max(0, at_ns - group.start_ns)
        last = group.last or stats
        if last is not None:
            parent = last.ppid
            if last.group_dead:
                code = last.exit_code
            if last.group_dead or not group.threaded:
                runtime_ns = last.elapsed_us * 1000
        cpu_ns = group.cpu_us * 1000 if self.taskstats else None
        parent = parent or group.parent
        uid = last.uid if last is not None else None
        exited = ProcessExit(group.start_ns, runtime_ns, comm, self._comm_of(parent), cpu_ns=cpu_ns, ppid=parent, uid=uid)
        if self._tally.exited(tgid, with_status(exited, code | group.core_dump)):
            if is_unnamed:
                self._tally.lose(Lost.NAME_RACE)
            if cpu_ns is not None and group.cpu_pending:
                self._tally.lose(Lost.CPU_NEVER_CAME)

    def _exited_unknown(self, at_ns: int, stats: Stats) -> None:
        """The exit of a process whose fork was lost; that counts as lost already, but all is known of the exit."""
        runtime_ns = stats.elapsed_us * 1000
        exited = ProcessExit(
            at_ns - runtime_ns,
            runtime_ns,
            stats.comm,
            self._comm_of(stats.ppid),
            cpu_ns=stats.cpu_us * 1000,
            ppid=stats.ppid,
            uid=stats.uid,
        )
        self._tally.exited(stats.tgid, with_status(exited, stats.exit_code))

    def _set_comm(self, tgid: int, group: Group, comm: bytes) -> None:
        group.comm = comm
        self._execs.named(tgid, comm)

    def _comm_of(self, tgid: int) -> bytes:
        """The name of a process that is a parent now."""
        group = self.alive.get(tgid)
        if group is None:
            return UNKNOWN_COMM
        if group.comm is None:
            comm = self._procfs.comm(tgid)
            if comm is None:
                return self.waiting.comm(tgid) or UNKNOWN_COMM
            self._set_comm(tgid, group, comm)
        return group.comm or UNKNOWN_COMM
