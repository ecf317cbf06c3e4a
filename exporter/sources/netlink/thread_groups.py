"""Follows processes (thread groups) by events of the proc connector and messages of taskstats.

A process exits with the exit event of its last thread. Threads are counted, as the kernel does (`signal->live`). The fork event of a thread
is sent before the thread runs, so also before the exit of the thread that created it. So on one socket the count never reaches zero too
early. Threads are not identified by TID: an exec in a thread other than the leader swaps the two TIDs (`de_thread`).

The count is exact for a process that is *followed* since its fork. A process can also be *found* in `/proc`, at the start or after events
were lost. Its count may be wrong, since it changed while it was read. Such a process has exited when taskstats reports its last thread
(AGROUP) or, without taskstats, when `/proc` does. If threads remain by the count, the exit is counted a moment later: only one thread has
the status that a core was dumped, and its event may come last.

Taskstats adds comm, CPU and a runtime that ends at the same moment as in other modes; the exit event comes later, after the memory was
freed. The taskstats message of a task is sent before its exit event, on another socket. So if that socket is read until it is empty after
the events were read, all their messages are there, and no exit has to wait.

Rejected: to count the exit at the message with AGROUP. It has no exact time, it is missing without privileges, and messages of threads that
exit at the same time may come after it.
"""

from __future__ import annotations

import time

from exporter.kernel.process_cgroups import ProcessCgroups
from exporter.kernel.procfs import Procfs, Stat
from exporter.kernel.taskstats import Stats
from exporter.kernel.wait_status import CORE_DUMPED, with_status
from exporter.model import KERNEL_THREADS, NS, UNKNOWN_COMM, Lost
from exporter.model.exits import ProcessExit
from exporter.sources.netlink.allowance import ReadAllowance
from exporter.sources.netlink.ancestors import Ancestors
from exporter.sources.netlink.group import SAME_START_NS, Exit, Group
from exporter.sources.netlink.group_cgroups import GroupCgroups
from exporter.sources.netlink.waiting import Execs, Waiting
from exporter.sources.tally import Tally

KTHREADD = 2
LATE_NS = NS
"""Longest delay of an exit event after its taskstats message, or after its process is missing in `/proc`."""


class Groups:
    """All processes by PID. Bounded by the number of processes of the host."""

    def __init__(self, tally: Tally, procfs: Procfs, *, taskstats: bool = False, arguments: bool = False) -> None:
        self.taskstats = taskstats
        self.clones = 0
        """Processes and threads reported by events, also those that the tally does not count."""
        self.alive: dict[int, Group] = {}
        self.waiting = Waiting()
        """Taskstats messages whose exit events have not come yet."""
        self._tally = tally
        self._procfs = procfs
        self._execs = Execs(tally)
        allowance = ReadAllowance()
        self._ancestors = Ancestors(self.alive, procfs, allowance, tally.threshold_ns)
        self.cgroups = GroupCgroups(self.alive, ProcessCgroups(procfs), allowance, procfs.arguments if arguments else None)
        self._awaiting_threads: dict[int, tuple[Exit, Group]] = {}
        """Exited processes of which some threads may not have been reported, with the latest exit event."""
        self._suspects: dict[int, Group] = {}

    def forked(self, at_ns: int, parent_tid: int, parent: int, tid: int, tgid: int) -> None:
        """Handle a fork event: of a process if `tid` is `tgid`, else of a thread."""
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
        elif parent_group is not None and parent_tid == parent:  # other threads may have other comms
            comm = parent_group.comm
        group = self.alive[tgid] = Group(at_ns, parent, comm)
        self.cgroups.forked(tgid, group, parent, parent_group)

    def execed(self, at_ns: int, tgid: int) -> None:
        """Handle an exec event."""
        group = self.alive.get(tgid)
        if group is not None:
            group.execed, group.arguments = True, None
        self.cgroups.read_soon(tgid)
        if group is not None and self.taskstats:
            group.comm = None
            self._execs.put(tgid, at_ns)
            return
        comm = self._procfs.comm(tgid)
        self._tally.execed(comm or UNKNOWN_COMM, at_ns)
        if group is not None:
            group.comm = comm

    def renamed(self, tid: int, tgid: int, comm: bytes) -> None:
        """Handle a rename event. The comm of a process is that of its leader."""
        group = self.alive.get(tgid)
        if tid == tgid and group is not None and group.comm is not KERNEL_THREADS:
            self._set_comm(tgid, group, comm)

    def exited(self, at_ns: int, tid: int, tgid: int, code: int, parent: int) -> None:
        """Handle the exit event of a thread. `code` is a status as in wait(2)."""
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
        """Read the comms of live processes for their execs before `until_ns`. Returns whether later execs remain."""
        for tgid in self._execs.older(until_ns):
            if (comm := self._procfs.comm(tgid)) is not None:
                self._set_comm(tgid, self.alive[tgid], comm)
        return bool(self._execs)

    def scan_proc(self, *, lost: bool) -> None:
        """Compare with `/proc`: add the processes that it lists, and suspect those that it does not list.

        Set `lost` if events were lost: then the forks of added processes were lost.
        """
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
            if group is not None and start_ns - group.start_ns <= SAME_START_NS:  # earlier if the host was suspended since
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
        """Suspect processes that `/proc` does not list. If their exits are not reported soon, the events were lost."""
        self._suspects |= gone

    def reconcile(self, now_ns: int, *, lost: bool = False) -> None:
        """Count suspects as lost, and stop waiting for late events, so that no exited process is kept. Set `lost` if events were lost."""
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
        """Count the exit of a process whose exit event was lost, but not its taskstats message."""
        if group is None:
            self._exited_unknown(now_ns, stats)
        elif self.alive.get(stats.tgid) is group:
            self._add_stats(group, stats, leads=stats.pid == stats.tgid or group.comm is None)
            self._exited(stats.tgid, group, Exit(now_ns, stats.exit_code, stats.ppid), stats)

    def finish(self, now_ns: int) -> None:
        """Count the remaining exits and execs, with what is known of them. No more events will come."""
        self.name_execs(now_ns + 1)
        self.reconcile(now_ns + 2 * LATE_NS)
        for tgid in self.alive:
            self._execs.named(tgid, UNKNOWN_COMM)

    def _enter(self, stat: Stat, start_ns: int, *, lost: bool) -> None:
        threaded = stat.threads > 1
        self.alive[stat.pid] = Group(start_ns, stat.ppid, stat.comm, stat.threads, found=True, lost=lost, threaded=threaded)
        self.cgroups.read_soon(stat.pid)

    def _has_gone(self, tgid: int) -> bool:
        stat = self._procfs.stat(tgid)
        if isinstance(stat, Lost):
            return stat is Lost.VANISHED
        return stat.ended

    def _add_stats(self, group: Group, stats: Stats, *, leads: bool) -> None:
        """Add the message of a thread to its process; `leads` if it is the leader."""
        group.cpu_us += stats.cpu_us
        group.core_dump |= stats.exit_code & CORE_DUMPED
        if leads and group.comm is not KERNEL_THREADS:
            group.comm = stats.comm
        if stats.group_dead:
            group.last = stats

    def _forget(self, tgid: int) -> None:
        self.alive.pop(tgid, None)
        self.cgroups.forget(tgid)
        self._awaiting_threads.pop(tgid, None)

    def _lost_exit(self, tgid: int, group: Group) -> None:
        """Count a lost exit event."""
        self._forget(tgid)
        if not group.lost:
            self._tally.lose(Lost.OVERRUN)
        self._execs.named(tgid, UNKNOWN_COMM)

    def _exited(self, tgid: int, group: Group, exit_event: Exit, stats: Stats | None) -> None:
        comm, is_unnamed = group.comm, False
        if comm is None:
            comm = self._procfs.comm(tgid)  # readable until the process is reaped
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
        spawner, lineage = self._ancestors.of(parent, group.start_ns, at_ns, self._comm_of)
        exited = ProcessExit(
            group.start_ns,
            runtime_ns,
            comm,
            self._comm_of(parent),
            cpu_ns=cpu_ns,
            ppid=parent,
            uid=uid,
            cgroup=group.cgroup,
            spawner=spawner,
            lineage=lineage,
            arguments=group.arguments,
        )
        if self._tally.exited(tgid, with_status(exited, code | group.core_dump)):
            if is_unnamed:
                self._tally.lose(Lost.NAME_RACE)
            if cpu_ns is not None and group.cpu_pending:
                self._tally.lose(Lost.CPU_NEVER_CAME)

    def _exited_unknown(self, at_ns: int, stats: Stats) -> None:
        """Count the exit of a process whose fork was lost. The message has all data of the exit; its cgroup is most likely its parent's."""
        runtime_ns = stats.elapsed_us * 1000
        start_ns = at_ns - runtime_ns
        parent = self._ancestors.parent(stats.ppid, start_ns)
        spawner, lineage = self._ancestors.of(stats.ppid, start_ns, at_ns, self._comm_of)
        exited = ProcessExit(
            start_ns,
            runtime_ns,
            stats.comm,
            self._comm_of(stats.ppid),
            cpu_ns=stats.cpu_us * 1000,
            ppid=stats.ppid,
            uid=stats.uid,
            cgroup=b"" if parent is None else parent.cgroup,
            spawner=spawner,
            lineage=lineage,
        )
        self._tally.exited(stats.tgid, with_status(exited, stats.exit_code))

    def _set_comm(self, tgid: int, group: Group, comm: bytes) -> None:
        group.comm = comm
        self._execs.named(tgid, comm)

    def _comm_of(self, tgid: int) -> bytes:
        """Return the comm of a parent."""
        group = self.alive.get(tgid)
        if group is None:
            return UNKNOWN_COMM
        if group.comm is None:
            comm = self._procfs.comm(tgid)
            if comm is None:
                return self.waiting.comm(tgid) or UNKNOWN_COMM
            self._set_comm(tgid, group, comm)
        return group.comm or UNKNOWN_COMM
