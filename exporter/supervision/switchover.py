"""How one source takes over from another without counting an event twice or not at all.

Both run for a while. They are told one moment of the clock that lies shortly ahead: the old one counts what happens before it, the new one
what happens from then on, each by the time that the event itself bears. Where two modes may date an event differently, they publish those
near that moment as unsure. The old one goes on until what comes late has come: events that are told after they happened, and the CPU of
the last exits, which the kernel tells when it frees a process. Until then both are shown together.
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
"""Room for telling both before the moment comes."""
_LATE_NS = NS // 4
"""The kernel frees a process 8 to 131 ms after its exit, and an exit is told over netlink some milliseconds after it."""
_TOO_LATE_NS = 2 * NS
"""A process that nobody reaps is not freed: the CPU that has not come by now is given up."""


@dataclass(slots=True)
class Running:
    """A source as it is shown: what it can't tell any more stays as it was shown last, so that no total falls."""

    source: Source
    _last: Counts = field(default_factory=Counts)

    def peek(self) -> Counts:
        """See `Source.peek`; where it has broken, the next drain will tell."""
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
    """A source that is no longer the active one: it waits for what comes late, or it broke."""

    running: Running
    until_ns: int
    lost: Counts = field(default_factory=Counts)
    """What the switch itself lost."""

    def is_done(self) -> bool:
        """Whether nothing more will come, or too late."""
        late_ns = time.monotonic_ns() - self.until_ns
        try:
            return late_ns >= _TOO_LATE_NS or (late_ns >= _LATE_NS and not self.running.source.cpu_pending())
        except SourceFailed:
            return True

    def rest(self) -> Counts:
        """Hand over what is left, once it has been stopped."""
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
    """Start `new`, have it take over from `old`, and return once it has. `prepare` is called with it before it counts.

    Raises `ModeUnavailable` where `new` can't run; `old` then goes on as if nothing had been. Raises `SourceFailed` where `old` broke.
    """
    new.start(standby=True)
    try:
        prepare(new)
        return _cut(old, new)
    except BaseException:
        discard(new)
        raise


def discard(source: Source) -> None:
    """Stop a source whose counts nobody wants."""
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
    if time.monotonic_ns() >= cut_ns:  # this process stood still meanwhile: `old` was told too late, and `new` may have counted the same
        twice = new.peek()
        retiring.lost.lose(Lost.SWITCH_UNSURE, sum(twice.total.exits) + twice.total.execs + twice.forks + twice.threads)
    time.sleep(max(0, cut_ns - time.monotonic_ns()) / NS)
    return retiring
