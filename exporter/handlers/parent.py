"""The consumer `handlers`: starts the child that runs handlers and sinks, feeds it, watches it, and starts it anew where it broke."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass

from exporter.handlers.feed import Feed
from exporter.handlers.plan import Plan
from exporter.handlers.process import Child
from exporter.handlers.wire import HandlerTally, Page
from exporter.process.log import fields
from exporter.records.hub import Batch

logger = logging.getLogger(__name__)

_START_SECONDS = 30.0
"""Longest that importing all handlers may take."""
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0
"""From the exit of a child to the start of the next; doubled each time."""
_TICK_SECONDS = 1.0
_LARGEST = 2**53


@dataclass(frozen=True, slots=True)
class HandlerStatus:
    """One handler since the exporter's start."""

    handler: str
    handled: int
    """Records that it took; in a sink, those that are in the file."""
    errors: int
    timeouts: int
    lost: int
    """Records that it should have had and hasn't."""


@dataclass(frozen=True, slots=True)
class Status:
    handlers: tuple[HandlerStatus, ...]
    restarts: int
    running: bool


class Handlers:
    """A `records.Consumer`. `start`, and `close` once no more records come."""

    name = "handlers"

    def __init__(self, plan: Plan, log_level: str = "info", log_format: str = "logfmt") -> None:
        self.live = plan.live
        self._plan = plan
        self._log = log_level, log_format
        self._lock = threading.Lock()
        """Around the feed, the page and what is counted here; never held while something may have to be waited for."""
        self._feed = Feed()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._child: Child | None = None
        self._page = self._blank = Page(0, 0, 0, tuple(HandlerTally() for _ in plan.handlers))
        self._before = tuple(HandlerTally() for _ in plan.handlers)
        """What the children before this one did."""
        self._timeouts = [0] * len(plan.handlers)
        self._restarts = 0
        self._closing_at: float | None = None
        """The moment by which all has to be over."""
        self._thread = threading.Thread(target=self._run, name="handlers", daemon=True)

    def start(self) -> None:
        """Start the child. It is started by a thread of ours, and ends with it; privileges have to be dropped before."""
        self._thread.start()

    def offer(self, batch: Batch) -> None:
        with self._lock:
            if self._closing_at is not None:
                self._feed.dropped["down"] += len(batch)
                return
            self._feed.add(batch)
            if self._feed:
                os.eventfd_write(self._wake, 1)

    def dropped(self) -> dict[str, int]:
        with self._lock:
            return dict(self._feed.dropped)

    def status(self) -> Status:
        """What the handlers did."""
        with self._lock:
            self._look()
            tallies = [_sum(before, now) for before, now in zip(self._before, self._page.tallies, strict=True)]
            rows = zip(self._plan.handlers, tallies, self._timeouts, strict=True)
            handlers = tuple(HandlerStatus(each.label, tally.handled, tally.errors, timeouts, tally.lost) for each, tally, timeouts in rows)
            return Status(handlers, self._restarts, self._child is not None)

    def close(self, seconds: float = 10.0) -> None:
        """Let everything that was accepted be handled and written, for so long at most. Only the first time does anything."""
        with self._lock:
            if self._closing_at is not None:
                return
            self._closing_at = time.monotonic() + seconds
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None:
            self._thread.join(seconds + 1)
        if not self._thread.is_alive():
            os.close(self._wake)

    def _run(self) -> None:
        pause = _SHORTEST_PAUSE_SECONDS
        reason: str | None = "down"
        while True:
            started, last = time.monotonic(), self._closing_at is not None
            try:
                child = self._started()
            except OSError as error:
                logger.warning("the handlers' process can't be started", extra=fields(error=error))
            else:
                reason = self._watched(child)
                status = self._reap(child, reason)
                if reason is not None:
                    logger.warning("the handlers' process ended", extra=fields(reason=reason, status=status))
            if reason is None or last or self._too_late():
                break
            if time.monotonic() - started > _LONGEST_PAUSE_SECONDS:
                pause = _SHORTEST_PAUSE_SECONDS
            self._pause(pause)  # ends at once when we are to close: what waits then has one last chance
            self._restarts += 1
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        with self._lock:
            self._feed.drop_queue("down")

    def _started(self) -> Child:
        with self._lock:
            reading = self._feed.connect()
        try:
            child = Child(self._plan, self._log, reading)
        except OSError:
            self._forget_child("down")
            raise
        finally:
            os.close(reading)
        with self._lock:
            self._child = child
            self._feed.flush()
        return child

    def _watched(self, child: Child) -> str | None:
        try:
            return self._watch(child)
        except Exception:
            logger.exception("the handlers' process can't be watched")
            return "crash"

    def _watch(self, child: Child) -> str | None:
        """Feed the child until it exits or hangs; return how. None if we are closing, and all there was has been written to it."""
        tick = min(_TICK_SECONDS, *(each.timeout_seconds / 4 for each in self._plan.handlers))
        seen, stood, before = -1, 0.0, time.monotonic()
        while True:
            whole = self._feed.wait(self._wake, tick)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            with self._lock:
                self._feed.flush()
                page, busy = self._look(), self._feed.sent > self._page.done
                through = self._closing_at is not None and not self._feed
            now = time.monotonic()
            turn, before = now - before, now
            if not whole or child.ended():
                return "crash"
            if through:
                return None
            if self._too_late():
                return "timeout"
            if page.progress != seen or not (busy or page.progress % 2):
                seen, stood = page.progress, 0.0
                continue
            stood += min(turn, tick)  # a longer turn: this process stood still itself, and the child with it perhaps
            if stood > self._allowed(page):
                self._timed_out(page)
                return "timeout"

    def _allowed(self, page: Page) -> float:
        """How long the child may do what it does."""
        if page.progress % 2 == 0:  # it is between handlers, or not even that far
            return _START_SECONDS
        at = min(page.current, len(self._plan.handlers) - 1)
        seconds = self._plan.handlers[at].timeout_seconds
        return max(seconds, _START_SECONDS) if page.done == 0 and page.progress < 2 * len(self._plan.handlers) else seconds

    def _timed_out(self, page: Page) -> None:
        if page.progress % 2 == 0:
            logger.warning("the handlers' process stands still", extra=fields(seconds=_START_SECONDS))
            return
        at = min(page.current, len(self._plan.handlers) - 1)
        with self._lock:
            self._timeouts[at] += 1
        logger.warning("a handler took too long", extra=fields(handler=self._plan.handlers[at].label, seconds=self._allowed(page)))

    def _reap(self, child: Child, reason: str | None) -> int | None:
        """Kill the child and count the records lost with it. Without a reason it may finish first."""
        with self._lock:
            self._feed.disconnect()
        while reason is None and not child.ended():
            if self._too_late():
                reason = "timeout"
                self._timed_out(self._page)
            time.sleep(0.01)
        status = child.reap()
        self._forget_child(reason or "crash")
        return status

    def _forget_child(self, reason: str) -> None:
        with self._lock:
            page = self._look()
            self._feed.disconnect()
            self._feed.dropped[reason] += max(0, self._feed.sent - page.done)
            self._feed.sent = 0
            self._before = tuple(_sum(before, now, buried=True) for before, now in zip(self._before, page.tallies, strict=True))
            self._page = self._blank
            if self._child is not None:
                self._child.close()
            self._child = None

    def _too_late(self) -> bool:
        """Return whether the time for closing is over."""
        return self._closing_at is not None and time.monotonic() >= self._closing_at

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._closing_at is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def _look(self) -> Page:
        """Read the page. What it says is believed only as far as it can be true: it rises, and stays within what was sent."""
        page = self._child.page() if self._child is not None else None
        if page is not None:
            done = min(page.done, self._feed.sent)
            self._page = page._replace(done=done, tallies=tuple(map(_plausible, self._page.tallies, page.tallies)))
        return self._page


def _plausible(before: HandlerTally, now: HandlerTally) -> HandlerTally:
    handled, errors, lost = (min(max(old, new), _LARGEST) for old, new in zip(before.numbers()[:3], now.numbers()[:3], strict=True))
    return HandlerTally(handled, errors, lost, min(now.pending, _LARGEST))


def _sum(before: HandlerTally, now: HandlerTally, *, buried: bool = False) -> HandlerTally:
    """What a sink had not yet written is lost with the child."""
    lost = before.lost + now.lost + (now.pending if buried else 0)
    return HandlerTally(before.handled + now.handled, before.errors + now.errors, lost)
