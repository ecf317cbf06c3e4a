"""Adds up what handlers count in several processes, one after the other, as far as it is believed."""

from __future__ import annotations

from dataclasses import replace

from exporter.handlers.wire import HandlerTally

_LARGEST = 2**53


def plausible(before: HandlerTally, now: HandlerTally) -> HandlerTally:
    """Return the counts of a child, which may lie: they never decrease, and don't overflow."""
    numbers = (min(max(old, new), _LARGEST) for old, new in zip(before.numbers(), now.numbers(), strict=True))
    return replace(HandlerTally(*numbers), pending=min(now.pending, _LARGEST))


def added(before: HandlerTally, now: HandlerTally, *, reaped: bool = False) -> HandlerTally:
    """Add the counts of a child. When it is reaped, the records that a sink has not written are lost."""
    lost = before.lost + now.lost + (now.pending if reaped else 0)
    events, lost_events = before.events + now.events, before.lost_events + now.lost_events
    return HandlerTally(before.handled + now.handled, before.errors + now.errors, lost, 0, events, lost_events)
