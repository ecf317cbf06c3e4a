"""The source of the mode `netlink`: process events of the proc connector, and taskstats where permitted.

One thread reads both sockets, many messages per system call. If events arrive faster than they are read, the kernel reports ENOBUFS and
drops all events until the queue is empty. Then the source lists `/proc` and continues from there.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import time
from collections.abc import Callable
from functools import partial

from exporter.kernel import netlink_sockets
from exporter.kernel.netlink_sockets import Sockets
from exporter.kernel.proc_connector import (
    EVENT_COMM,
    EVENT_EXEC,
    EVENT_EXIT,
    EVENT_FORK,
    EVENT_NONE,
    SLOT_BYTES,
    Subscription,
    comm_of,
    events,
)
from exporter.kernel.procfs import Procfs
from exporter.kernel.recvmmsg import Datagrams
from exporter.kernel.taskstats import SLOT_BYTES as STATS_SLOT_BYTES
from exporter.kernel.taskstats import Registration, Stats, decode
from exporter.model import NS, Gauges, Lost, Mode, ModeUnavailable, RuntimeScale, SourceFailed
from exporter.process.rate_limited_log import RateLimitedLog
from exporter.sources.netlink.allowance import Allowance
from exporter.sources.netlink.shortfall import Shortfall
from exporter.sources.netlink.thread_groups import Groups
from exporter.sources.tallied import TallySource
from exporter.sources.tally import Tally

log = logging.getLogger(__name__)

MS = NS // 1000
SLOTS, STATS_SLOTS = 256, 128
GATHER_SECONDS = 0.005
"""Delay after a wake-up, to read more events at once. No delay without taskstats: comms must then be read from `/proc` quickly."""
EAGER_NS, EAGER_SAVED_NS = 3 * MS, 300 * MS
"""Wake-ups without delay, so that the cgroup can be read before the process exits: one in so much time, of which some can be saved up."""
YOUNG_NS = 50 * MS
"""An exec younger than this gets its comm from the exit of the process; an older one from `/proc`."""
TICK_NS, RECONCILE_NS, LISTING_NS = NS, 5 * NS, 60 * NS
UNSURE_NS = 10 * MS
"""A task may be preempted between the tracepoint of an event and the timestamp of the proc connector."""
LAST_READ_NS = 2 * NS
STOP_SECONDS = 3.0


class NetlinkSource(TallySource):
    """Sees all processes. Without taskstats it has no CPU, and only the comms that can be read in time."""

    mode = Mode.NETLINK

    def __init__(
        self, scale: RuntimeScale, procfs: Procfs, open_sockets: Callable[[], Sockets] | None = None, *, arguments: bool = False
    ) -> None:
        """`open_sockets` opens the sockets and raises `ModeUnavailable`; the default opens them in this process.

        `arguments`: also read those of processes.
        """
        self._open_sockets = open_sockets or (lambda: netlink_sockets.open_sockets(procfs))
        self._procfs = procfs
        super().__init__(Tally(scale, unsure_ns=UNSURE_NS))
        self._groups = Groups(self._tally, procfs, arguments=arguments)
        self._shortfall = Shortfall(procfs, self._tally)
        self._subscription: Subscription | None = None
        self._registration: Registration | None = None
        self._no_taskstats = "not started"
        self._events = Datagrams(SLOTS, SLOT_BYTES)
        self._stats = Datagrams(STATS_SLOTS, STATS_SLOT_BYTES)
        self._overrun = self._reconcile_losses = False
        self._sequence: dict[int, int] = {}
        self._event_ns = self._tick_due_ns = self._reconcile_due_ns = self._listing_due_ns = 0
        self._overruns = RateLimitedLog(log)
        self._wake_fd = -1
        self.cpu_ns = 0
        """CPU used by the reading thread."""

    def start(self, *, standby: bool = False) -> None:
        """Subscribe, then read `/proc`: events that occur meanwhile wait in the socket. See `Source`."""
        if standby:
            self._tally.standby()
        self._subscription, self._registration, self._no_taskstats = self._open_sockets()
        self._groups.taskstats = self._registration is not None
        try:
            self._shortfall.begin(self._groups.clones)
            self._groups.scan_proc(lost=False)
            self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError as error:
            self._release()
            raise ModeUnavailable(f"cannot list {self._procfs.root}: {error.strerror}") from error
        self._start_thread(partial(self._run, self._subscription))

    def gauges(self) -> Gauges:
        return Gauges(short_exits=self._tally.short_exits())

    def about(self) -> str:
        registration, subscription = self._registration, self._subscription
        mib = [f"{each.buffer_bytes / (1 << 20):.3g}" for each in (subscription, registration) if each is not None]
        names = (
            "taskstats reports names and CPU"
            if registration is not None
            else f"no taskstats, so no CPU and few names ({self._no_taskstats})"
        )
        filtered = (
            "the kernel filters events" if subscription is not None and subscription.filtered else "this kernel does not filter events"
        )
        return f"{names}; {filtered}; receive buffers of {' and '.join(mib) or 'no'} MiB"

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            os.eventfd_write(self._wake_fd, 1)
            self._thread.join(STOP_SECONDS)
            if self._thread.is_alive():
                log.warning("netlink reader did not stop in time")
                return
            self._thread = None
        self._release()

    def _release(self) -> None:
        for each in (self._subscription, self._registration):
            if each is not None:
                each.close()
        self._subscription = self._registration = None
        if self._wake_fd >= 0:
            os.close(self._wake_fd)
            self._wake_fd = -1

    def _run(self, subscription: Subscription) -> None:
        try:
            self._loop(subscription)
        except Exception as error:
            log.exception("reading netlink failed")
            self._failure = f"reading netlink failed: {error if isinstance(error, SourceFailed) else repr(error)}"

    def _loop(self, subscription: Subscription) -> None:
        poll, stop = select.poll(), select.poll()
        poll.register(subscription.socket, select.POLLIN)
        for each in (poll, stop):
            each.register(self._wake_fd, select.POLLIN)
        timeout = TICK_NS
        eager = Allowance(EAGER_SAVED_NS)
        while not self._stopping.is_set():
            if poll.poll(timeout // MS) and self._groups.taskstats:
                if eager.is_spent:
                    stop.poll(GATHER_SECONDS * 1000)
                else:
                    eager.charge(EAGER_NS)
            empty = self._read(subscription)
            while not empty and not self._stopping.is_set():
                empty = self._read(subscription)
                self._tick(subscription, empty=False)
            self._tick(subscription, empty=empty)
            timeout = YOUNG_NS if self._groups.name_execs(time.monotonic_ns() - YOUNG_NS) else TICK_NS
            self.cpu_ns = time.thread_time_ns()
        self._finish(subscription)

    def _finish(self, subscription: Subscription) -> None:
        """Read and count the events up to now."""
        now = time.monotonic_ns()
        while not self._read(subscription) and self._event_ns < now and time.monotonic_ns() < now + LAST_READ_NS:
            pass
        self._groups.finish(now)
        self._tally.flush(self.mode)

    def _read(self, subscription: Subscription) -> bool:
        """Read some events and their taskstats messages, and count them. Returns whether the queue is empty."""
        try:
            sizes = self._events.read(subscription.socket)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._overrun = True
            return False
        if self._registration is not None:
            self._read_stats(self._registration)
        self._count(sizes, subscription)
        self._groups.cgroups.read()
        self._tally.flush(self.mode)
        if empty := len(sizes) < SLOTS:
            self._on_empty_queue()
        return empty

    def _read_stats(self, registration: Registration) -> None:
        stats, put, lose = self._stats, self._groups.waiting.put, self._tally.lose
        n = STATS_SLOTS
        while n == STATS_SLOTS:
            try:
                sizes = stats.read(registration.socket)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue  # exits without their message are counted as lost CPU
            n = len(sizes)
            for i, size in enumerate(sizes):
                at = i * STATS_SLOT_BYTES
                message = decode(stats.view[at : at + size], registration.family)
                if isinstance(message, Stats):
                    put(message)
                elif message is not None:
                    lose(message)

    def _count(self, sizes: list[int], subscription: Subscription) -> None:
        groups = self._groups
        for i, event in enumerate(events(self._events.view, sizes)):
            if event is None:
                self._tally.lose(Lost.MALFORMED)
                continue
            what, cpu, at_ns, number, _, a, b, c, d, _, f = event
            if what == EVENT_EXIT:
                groups.exited(at_ns, a, b, c, f)
                self._event_ns = at_ns
            elif what == EVENT_FORK:
                groups.forked(at_ns, a, b, c, d)
            elif what == EVENT_EXEC:
                groups.execed(at_ns, b)
            elif what == EVENT_COMM:
                groups.renamed(a, b, comm_of(self._events.view, i))
            if not subscription.filtered and what != EVENT_NONE:  # acknowledgements have no sequence number
                if self._sequence.get(cpu, number) != number:
                    self._overrun = True
                self._sequence[cpu] = (number + 1) & 0xFFFFFFFF

    def _on_empty_queue(self) -> None:
        """After an overrun, read `/proc`: from now on no event is dropped. Lost exits are found a second later."""
        if self._overrun:
            self._overrun = False
            now = time.monotonic_ns()
            self._overruns.warning("kernel dropped process events: they arrived faster than they were read")
            self._shortfall.lost = self._reconcile_losses = True
            self._groups.scan_proc(lost=True)
            self._reconcile_due_ns = now + NS

    def _tick(self, subscription: Subscription, *, empty: bool) -> None:
        """Do the periodic work: once per second, if the queue is empty."""
        now = time.monotonic_ns()
        if now < self._tick_due_ns:
            return
        self._tick_due_ns = now + TICK_NS
        if not empty:
            return
        before = self._procfs.kernel_clones()
        if self._read(subscription) and self._shortfall.compare(before, self._groups.clones):
            self._overrun = True
            self._on_empty_queue()
        if now >= self._reconcile_due_ns:
            self._reconcile_due_ns = now + RECONCILE_NS
            self._groups.reconcile(now, lost=self._reconcile_losses)
            self._reconcile_losses = False
            if now >= self._listing_due_ns:
                self._listing_due_ns = now + LISTING_NS
                listed = set(self._procfs.pids())
                self._groups.suspect({pid: group for pid, group in self._groups.alive.items() if pid not in listed})
