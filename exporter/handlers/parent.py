"""The consumer `handlers`: starts the child that runs handlers and sinks, feeds and watches it, and restarts it if it fails."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from operator import sub

from exporter.handlers.feed import Feed
from exporter.handlers.plan import Plan
from exporter.handlers.process import Child
from exporter.handlers.registries import Registries, parsed
from exporter.handlers.tallies import added, plausible
from exporter.handlers.wire import HandlerTally, Page, count_kinds
from exporter.model.events import EventKind
from exporter.process.log import fields
from exporter.records.event import Event
from exporter.records.hub import Batch, Consumer

logger = logging.getLogger(__name__)

_START_SECONDS = 30.0
"""Longest time for the import of all handlers."""
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0
"""From the exit of a child to the start of the next; doubled after each failure."""
_TICK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class HandlerStatus:
    """Counts of one handler since the exporter started."""

    handler: str
    handled: int
    """Records that it processed; for a sink, records in the file."""
    errors: int
    timeouts: int
    lost: int
    """Records that it should have processed but did not."""
    events: int
    """Events that it processed."""
    lost_events: int
    """Events that it should have processed but did not."""


@dataclass(frozen=True, slots=True)
class Status:
    handlers: tuple[HandlerStatus, ...]
    restarts: int
    running: bool


class Handlers:
    """A `records.Consumer`. Call `start` once, and `close` when no more records come."""

    name = "handlers"
    at_once = False

    def __init__(self, plan: Plan, log_level: str = "info", log_format: str = "logfmt") -> None:
        self.live = plan.live
        self._plan = plan
        self._log = log_level, log_format
        self._lock = threading.Lock()
        """Protects the feed, the page and the counts here. Never held during a wait."""
        self._feed = Feed()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._child: Child | None = None
        self._page = self._blank = Page(0, 0, 0, (0,) * len(EventKind), tuple(HandlerTally() for _ in plan.handlers))
        self._before = tuple(HandlerTally() for _ in plan.handlers)
        """Counts of earlier children."""
        self._timeouts = [0] * len(plan.handlers)
        self._restarts = 0
        self._metrics_body, self._registries = b"", Registries()
        self._closing_at: float | None = None
        """Deadline of `close`, on the monotonic clock."""
        self._thread = threading.Thread(target=self._run, name="handlers", daemon=True)

    def start(self) -> None:
        """Start the child, from a thread of ours: it is killed when that thread ends. Drop privileges before."""
        self._thread.start()

    @property
    def consumers(self) -> list[Consumer]:
        """Return itself, and a second one if handlers do not wait for CPU. The records that both drop are counted here.

        None if all handlers want only events.
        """
        wanting = [each for each in self._plan.handlers if each.records]
        return [self, *([_AtOnce(self)] if any(each.at_once for each in wanting) else [])] if wanting else []

    def offer(self, batch: Batch) -> None:
        self.accept(batch, at_once=False)

    def accept(self, batch: Batch, *, at_once: bool) -> None:
        """Pass a batch to the handlers with this `at_once`, or drop and count it."""
        if not any(each.at_once is at_once for each in self._plan.handlers):
            return
        with self._lock:
            if self._closing_at is not None:
                self._feed.dropped["down"] += len(batch)
                return
            self._feed.add(batch, at_once=at_once)
            if self._feed:
                os.eventfd_write(self._wake, 1)

    def dropped(self) -> dict[str, int]:
        with self._lock:
            return dict(self._feed.dropped)

    @property
    def wants_events(self) -> bool:
        """Whether a handler subscribes to events."""
        return any(each.events for each in self._plan.handlers)

    def offer_events(self, batch: Sequence[Event]) -> None:
        with self._lock:
            if self._closing_at is not None:
                self._feed.drop_events(count_kinds(batch), "down")
                return
            self._feed.add_events(batch)
            if self._feed:
                os.eventfd_write(self._wake, 1)

    def dropped_events(self) -> dict[tuple[EventKind, str], int]:
        with self._lock:
            return dict(self._feed.events_dropped)

    def status(self) -> Status:
        """Return the counts of all handlers."""
        with self._lock:
            self._read_page()
            tallies = [added(before, now) for before, now in zip(self._before, self._page.tallies, strict=True)]
            rows = zip(self._plan.handlers, tallies, self._timeouts, strict=True)
            handlers = tuple(
                HandlerStatus(each.label, tally.handled, tally.errors, timeouts, tally.lost, tally.events, tally.lost_events)
                for each, tally, timeouts in rows
            )
            return Status(handlers, self._restarts, self._child is not None)

    def registries(self) -> Registries:
        """Return the metrics that handlers have in registries of their own, none while no child runs. For one thread at a time."""
        with self._lock:
            body = self._child.metrics() if self._child is not None else b""
        if body is not None and body != self._metrics_body:
            self._metrics_body, self._registries = body, parsed(body)
        return self._registries

    def close(self, seconds: float = 10.0) -> None:
        """Let the child process and write all accepted records, within `seconds`. Only the first call has an effect."""
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
                child = self._start_child()
            except OSError as error:
                logger.warning("cannot start the handler process", extra=fields(error=error))
            else:
                reason = self._watch_safely(child)
                status = self._reap(child, reason)
                if reason is not None:
                    logger.warning("handler process exited", extra=fields(reason=reason, status=status))
            if reason is None or last or self._too_late():
                break
            if time.monotonic() - started > _LONGEST_PAUSE_SECONDS:
                pause = _SHORTEST_PAUSE_SECONDS
            self._pause(pause)  # ends at once on `close`: one last child gets the waiting records
            self._restarts += 1
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        with self._lock:
            self._feed.drop_queue("down")

    def _start_child(self) -> Child:
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

    def _watch_safely(self, child: Child) -> str | None:
        try:
            return self._watch(child)
        except Exception:
            logger.exception("cannot watch the handler process")
            return "crash"

    def _watch(self, child: Child) -> str | None:
        """Feed the child until it exits or hangs. Returns the reason; None if, after `close`, all records have been written to it."""
        tick = min(_TICK_SECONDS, *(each.timeout_seconds / 4 for each in self._plan.handlers))
        seen, stood, before = -1, 0.0, time.monotonic()
        while True:
            whole = self._feed.wait(self._wake, tick)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            with self._lock:
                self._feed.flush()
                page = self._read_page()
                busy = self._feed.sent > page.done or self._feed.events_sent != list(page.events_done)
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
            stood += min(turn, tick)  # a longer turn means that this process was stopped, perhaps with the child
            if stood > self._allowed(page):
                self._timed_out(page)
                return "timeout"

    def _allowed(self, page: Page) -> float:
        """Return how many seconds the child may go without progress."""
        if page.progress % 2 == 0:  # between handlers, or still starting
            return _START_SECONDS
        at = min(page.current, len(self._plan.handlers) - 1)
        seconds = self._plan.handlers[at].timeout_seconds
        return (
            max(seconds, _START_SECONDS)
            if page.done == 0 and not any(page.events_done) and page.progress < 2 * len(self._plan.handlers)
            else seconds
        )

    def _timed_out(self, page: Page) -> None:
        if page.progress % 2 == 0:
            logger.warning("handler process makes no progress", extra=fields(seconds=_START_SECONDS))
            return
        at = min(page.current, len(self._plan.handlers) - 1)
        with self._lock:
            self._timeouts[at] += 1
        logger.warning("handler timed out", extra=fields(handler=self._plan.handlers[at].label, seconds=self._allowed(page)))

    def _reap(self, child: Child, reason: str | None) -> int | None:
        """Kill the child, and count the records lost with it. Without a reason, let it finish first."""
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
            page = self._read_page()
            self._feed.disconnect()
            self._feed.dropped[reason] += max(0, self._feed.sent - page.done)
            self._feed.drop_events(map(sub, self._feed.events_sent, page.events_done), reason)
            self._feed.forget_sent()
            self._before = tuple(added(before, now, reaped=True) for before, now in zip(self._before, page.tallies, strict=True))
            self._page = self._blank
            if self._child is not None:
                self._child.close()
            self._child = None

    def _too_late(self) -> bool:
        """Return whether the deadline of `close` has passed."""
        return self._closing_at is not None and time.monotonic() >= self._closing_at

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._closing_at is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def _read_page(self) -> Page:
        """Read the page. Its numbers are corrected to plausible ones: they never decrease, and don't exceed the records sent."""
        page = self._child.page() if self._child is not None else None
        if page is not None:
            done = min(page.done, self._feed.sent)
            events_done = tuple(map(min, page.events_done, self._feed.events_sent))
            self._page = page._replace(done=done, events_done=events_done, tallies=tuple(map(plausible, self._page.tallies, page.tallies)))
        return self._page


class _AtOnce:
    """The consumer of the handlers that do not wait for CPU."""

    name = "handlers"
    live = True
    at_once = True

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def offer(self, batch: Batch) -> None:
        self._handlers.accept(batch, at_once=True)

    def dropped(self) -> dict[str, int]:
        return {}
