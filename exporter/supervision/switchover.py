"""How one source takes over from another without counting an event twice or not at all.

Both run for a moment. The old one lists the ends that it counts, the new one lists ends instead of counting them, and what only the new one
saw is added once the old one has stopped: ends are told apart by process id and start. All other events are cut at one moment of the clock
that the events themselves carry; where two modes may read it at different moments, the events near the cut are published as unsure. A scan
dates events by guess, so where it takes part only ends are exact.
"""

from __future__ import annotations

import logging
import time

from exporter.model import FOREVER_NS, Lost, ModeUnavailable, RuntimeScale, SourceFailed
from exporter.model.counts import Counts
from exporter.model.ends import Ends
from exporter.process.log import fields
from exporter.sources.base import Source
from exporter.sources.tally import Tally

logger = logging.getLogger(__name__)

_SECONDS = 0.25
"""The kernel frees a process, and tells its CPU, 8 to 131 ms after its end: that of most that only the old source saw still comes to it."""
_UNDER_WAY_SECONDS = 0.1
"""The old source may count an end before it lists, and the new one hear of it after it started: an exit passes the tracepoint, gives its
memory and files back, and only then is told to the proc connector."""
_AHEAD_NS = 20_000_000
"""The cut lies ahead, so that both sources know of it when it comes."""


def run_both(old: Source, new: Source) -> None:
    """Start the new source quietly, and stop the old one. Raises `ModeUnavailable` where the new one can't run; the old one then goes on.

    Raises `SourceFailed` where the old one broke; the new one is then stopped.
    """
    old.list_ends(on=True)
    try:
        time.sleep(_UNDER_WAY_SECONDS)
        new.start(quiet=True)
        _hand_over(old, new)
    except Exception:
        old.list_ends(on=False)
        raise
    old.stop()


def settle(old: Source, new: Source, scale: RuntimeScale) -> Counts:
    """Let the new source count, and return what both together saw beyond what each has counted itself.

    Raises `SourceFailed` where the new one broke.
    """
    counted, pending = _left_by(old)
    listed = new.join(counted)
    tally = Tally(scale)
    tally.lose(Lost.SWITCH_UNSURE, listed.missing)
    for pid, end in listed:
        if counted.find(pid, end) is None:
            if counted.missing:  # it may be one of those
                tally.lose(Lost.SWITCH_UNSURE)
            else:
                tally.ended(pid, end)
    settled = _settle_cpu(tally, counted, listed, old, new)
    tally.lose(Lost.CPU_NEVER_CAME, max(0, pending - settled))
    counts = tally.drain()
    counts.records_dropped = counts.total.short_exits
    return counts


def cpu_pending(source: Source) -> Counts:
    """Return what is lost of a stopped source that nobody takes over from: the CPU that would still have come."""
    counts = Counts()
    counts.lose(Lost.CPU_NEVER_CAME, _left_by(source)[1])
    return counts


def _left_by(old: Source) -> tuple[Ends, int]:
    """Give what it listed, and how many processes it has not charged yet; it may have broken while it was stopped."""
    try:
        return old.listed(), old.cpu_pending()
    except SourceFailed as failure:
        logger.error("what ended during the switch is not known", extra=fields(mode=old.mode, error=failure))  # noqa: TRY400
        return Ends(missing=1), 0


def _settle_cpu(tally: Tally, counted: Ends, listed: Ends, old: Source, new: Source) -> int:
    """Charge each process that the old source counted once, whoever knows its CPU, now or later. Returns how many of them."""
    settled = 0
    for pid, end in counted:
        other = listed.find(pid, end)
        if old.cpu_after_exit and end.cpu_ns is not None:
            continue  # it charged this one itself
        if other is None:
            known = end.cpu_ns
        elif other.cpu_ns is None and new.cpu_after_exit:
            settled += 1
            continue
        else:
            known = end.cpu_ns if other.cpu_ns is None else other.cpu_ns
        if known is not None:
            tally.charged(end, known)
            settled += 1
    return settled


def _hand_over(old: Source, new: Source) -> None:
    """Until one moment the old source counts what is not an end, from then on the new one."""
    try:
        if new.immediate:
            time.sleep(_SECONDS)
        cut_ns = time.monotonic_ns() + _AHEAD_NS
        _tell(new, cut_ns)
        old.cut(0, cut_ns)
        time.sleep(max(0, cut_ns - time.monotonic_ns()) / 1e9)
    except Exception:
        new.stop()
        raise


def _tell(new: Source, cut_ns: int) -> None:
    try:
        new.cut(cut_ns, FOREVER_NS)
    except SourceFailed as failure:
        raise ModeUnavailable(str(failure)) from failure
