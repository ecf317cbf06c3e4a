"""The short processes of this host."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType

from exporter.config.options import Config, Filter
from exporter.library.inbox import EventInbox
from exporter.library.processes import Ended, Events, Processes, Totals
from exporter.loaders.direct import Direct
from exporter.model import Mode, ModeUnavailable, Outcome, SourceFailed
from exporter.model.events import EventKind
from exporter.records.arguments import reducer
from exporter.records.hub import Hub
from exporter.records.subscriptions import Subscription
from exporter.supervision.modes import SPECS, loader_settings
from exporter.supervision.snapshot import Snapshot
from exporter.supervision.supervisor import Supervisor

_TICK_SECONDS = 1.0


class Host(Processes):
    """Uses a supervisor like the exporter's, in a thread of its own."""

    def __init__(self, config: Config, wanted: Filter | None = None, keep: int = 0, events: Sequence[EventKind] = ()) -> None:
        super().__init__(wanted, keep)
        subscription = Subscription(events, wanted or Filter())
        self._event_inbox = EventInbox(subscription.matches()) if events else None
        self._events = None if self._event_inbox is None else Events(self._event_inbox, self._missing_events)
        self._hub = Hub(0, reducer(config.records))
        self._supervisor = Supervisor(config, self._hub, Direct(loader_settings(replace(config, handlers=()), [subscription])))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="processes", daemon=True)
        self._described: tuple[Mode | None, str] = None, "no mode"
        self._last: Snapshot | None = None

    @property
    def mode(self) -> Mode | None:
        """The mode that observes; None while none works."""
        return self._supervisor.mode

    @property
    def description(self) -> str:
        mode = self.mode
        if mode is not None and mode is not self._described[0]:
            snapshot = self._supervisor.snapshot()
            why = f", because {snapshot.why.rstrip('.')}" if snapshot.degraded else ""
            caution = ", which misses most processes that live for less than its interval" if not SPECS[mode].exact else ""
            self._described = mode, f"mode {mode}{caution}{why}"
        return self._described[1]

    @property
    def events(self) -> Events:
        return super().events if self._events is None else self._events

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        super().__exit__(kind, error, traceback)
        if self._event_inbox is not None:
            self._event_inbox.release()

    def counts(self) -> Totals:
        try:
            snapshot = self._last or self._supervisor.snapshot()
        except SourceFailed as failure:
            raise Ended(str(failure)) from failure
        counts, total = snapshot.view.counts, snapshot.view.counts.total
        return Totals(
            exits={outcome: total.exits[outcome.position] for outcome in Outcome},
            short=total.short_exits,
            cpu_ns=total.cpu_ns,
            short_cpu_ns=total.short_cpu_ns,
            forks=counts.forks,
            threads=counts.threads,
            execs=total.execs,
            lost={str(reason): n for reason, n in counts.lost.items()},
            capture_ratio=snapshot.capture_ratio,
            mode=snapshot.mode,
        )

    def _open(self) -> None:
        """Start the best mode that works. Raises `ModeUnavailable`, also if it tells no events and they are wanted."""
        self._supervisor.start()
        if self._event_inbox is not None:
            self._hub.events.attach(self._event_inbox)
            if reason := self._supervisor.no_events:
                raise ModeUnavailable(f"mode {self.mode} is active, but there are no events: {reason}")
        self._hub.attach(self._inbox)  # only now: the start of a mode runs short processes itself
        self._thread.start()

    def _close(self) -> None:
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._thread is not threading.current_thread() and self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(SourceFailed):
            self._last = self._supervisor.snapshot()
        self._supervisor.stop()
        if self._event_inbox is not None:
            self._event_inbox.close()

    def _missing(self) -> int:
        with contextlib.suppress(SourceFailed):
            return (self._last or self._supervisor.snapshot()).records_dropped["reader", "full"]
        return 0

    def _missing_events(self) -> dict[EventKind, int]:
        missing: Counter[EventKind] = Counter()
        with contextlib.suppress(SourceFailed):
            for (kind, _), n in (self._last or self._supervisor.snapshot()).view.counts.events_dropped.items():
                missing[kind] += n
        return missing

    def _run(self) -> None:
        try:
            while not self._stopping.wait(_TICK_SECONDS):
                self._supervisor.tick()
        except Exception as error:
            self.failure = f"the supervisor failed: {error}"
            self._inbox.close()
            if self._events is not None and self._event_inbox is not None:
                self._events.failure = self.failure
                self._event_inbox.close()
            raise
