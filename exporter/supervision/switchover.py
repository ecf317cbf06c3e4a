"""Switches from one source to another; each event is counted once.

Both run for a while. They get the same moment of the clock, shortly ahead: the old source counts the events before it, the new source the
events from then on, each by the time of the event itself. If two modes may date an event differently, events close to that moment are
published as unsure. The old source stays until its late data have arrived: events that are reported after they happened, and the CPU of the
last exits, which the kernel reports when it frees a process. Until then a scrape shows both.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from exporter.model import NS, Gauges, Lost, ModeUnavailable, SourceFailed
from exporter.model.counts import Counts
from exporter.process.log import fields
from exporter.sources.base import Source

logger = logging.getLogger(__name__)

_AHEAD_NS = 20_000_000
"""Time to inform both sources before the moment of the switch."""
_LATE_NS = NS // 4
"""The kernel frees a process 8 to 131 ms after its exit, and reports an exit over netlink some milliseconds after it."""
_TOO_LATE_NS = 2 * NS
"""A process that is not reaped is not freed: CPU that has not arrived by then is given up."""


@dataclass(slots=True)
class Running:
    """A source as scrapes see it. If it fails, its last counts stay, so that no total decreases."""

    source: Source
    _last: Counts = field(default_factory=Counts)

    def peek(self) -> Counts:
        """See `Source.peek`. If it has failed, the next drain raises."""
        with contextlib.suppress(SourceFailed):
            self._last = self.source.peek()
        return self._last

    def gauges(self) -> Gauges:
        """See `Source.gauges`."""
        try:
            return self.source.gauges()
        except SourceFailed:
            return Gauges()

    def drain(self) -> Counts:
        """See `Source.drain`."""
        counts = self.source.drain()
        self._last = Counts()
        return counts


@dataclass(slots=True)
class Retiring:
    """A source that is no longer active: it waits for late data, or it failed."""

    running: Running
    until_ns: int
    lost: Counts = field(default_factory=Counts)
    """Losses of the switch itself."""

    def is_done(self) -> bool:
        """Return whether all late data have arrived, or time is up."""
        late_ns = time.monotonic_ns() - self.until_ns
        try:
            return late_ns >= _TOO_LATE_NS or (late_ns >= _LATE_NS and not self.running.source.cpu_pending())
        except SourceFailed:
            return True

    def rest(self) -> Counts:
        """Return the remaining counts, after it was stopped."""
        source, counts = self.running.source, Counts()
        counts.add(self.lost)
        with contextlib.suppress(SourceFailed):
            counts.lose(Lost.CPU_NEVER_CAME, source.cpu_pending())
        shown = self.running.peek()
        try:
            counts.add(source.drain())
        except SourceFailed as loss:
            logger.error("cannot read the last counts of a mode", extra=fields(mode=source.mode, error=loss))  # noqa: TRY400
            counts.add(shown)
        return counts


def take_over(old: Running, new: Source, prepare: Callable[[Source], None]) -> Retiring:
    """Start `new`, and return when it has taken over from `old`. `prepare` is called with it before it counts.

    Raises `ModeUnavailable` if `new` cannot run; `old` is then unchanged. Raises `SourceFailed` if `old` has failed.
    """
    new.start(standby=True)
    try:
        prepare(new)
        return _cut(old, new)
    except BaseException:
        discard(new)
        raise


def discard(source: Source) -> None:
    """Stop a source and drop its counts."""
    source.stop()
    with contextlib.suppress(SourceFailed):
        source.drain()


def _cut(old: Running, new: Source) -> Retiring:
    cut_ns = time.monotonic_ns() + _AHEAD_NS
    try:
        new.count_from(cut_ns)
    except SourceFailed as failure:
        raise ModeUnavailable(str(failure)) from failure
    old.source.count_until(cut_ns)
    retiring = Retiring(old, cut_ns)
    if time.monotonic_ns() >= cut_ns:  # this process was stopped: `old` was informed too late; `new` may have counted the same
        twice = new.peek()
        retiring.lost.lose(Lost.SWITCH_UNSURE, sum(twice.total.exits) + twice.total.execs + twice.forks + twice.threads)
    time.sleep(max(0, cut_ns - time.monotonic_ns()) / NS)
    return retiring
