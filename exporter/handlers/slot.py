"""One handler in the child: makes it, calls it, and catches its exceptions."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

from exporter.config.options import Filter
from exporter.handlers import Handler, Record, loading
from exporter.handlers.registries import UserFamily, converted
from exporter.handlers.sink import Sink
from exporter.handlers.wire import HandlerTally, PageWriter
from exporter.model.events import EventKind
from exporter.process.rate_limited_log import RateLimitedLog
from exporter.records import filters
from exporter.records.event import Event
from exporter.records.subscriptions import Subscription

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 60.0


class Slot:
    """Makes the handler, and retries that if it fails. Passes it the records it wants. Its exceptions never leave the slot."""

    def __init__(self, number: int, planned: dict[str, Any], page: PageWriter) -> None:
        self._at_once: bool = planned["at_once"]
        self._number = number
        self._label: str = planned["label"]
        self._planned = planned
        self._page = page
        self._wants = filters.compiled(Filter(**planned["filter"]))
        kinds = tuple(map(EventKind, planned["events"]))
        self._wants_event = Subscription(kinds, Filter(**planned["filter"])).matches() if kinds else None
        self._wants_records: bool = planned["records"]
        self._log = RateLimitedLog(logger)
        self._handler: Any = None
        self._filter: Any = None
        self._try_at = 0.0
        self._tally = HandlerTally()

    def start(self) -> None:
        """Import and make the handler."""
        self._page.enter(self._number)
        try:
            handler = loading.load(self._planned["target"], self._planned["path"])(**self._planned["options"])
            if self._wants_records:
                handler.handle  # noqa: B018 - raises if there is none
            if self._wants_event is not None:
                handler.handle_events  # noqa: B018
        except BaseException as error:  # noqa: BLE001 - SystemExit too: a handler must not end the process
            self._try_at = time.monotonic() + _AGAIN_SECONDS
            self._failed("cannot make a handler; retrying each minute", error)
        else:
            if isinstance(handler, Sink):
                handler.tally.errors, handler.tally.lost = self._tally.errors, self._tally.lost
                self._tally = handler.tally
            own = getattr(handler, "filter", None)
            self._filter = None if own is None or getattr(type(handler), "filter", None) is Handler.filter else own
            self._handler = handler
        self._page.leave(self._number, self._tally)

    def handle(self, batch: list[Record], *, at_once: bool) -> None:
        """Pass the wanted records to the handler. Of two batches with the same records, it gets the one that it asked for."""
        if at_once is not self._at_once or not self._wants_records:
            return
        tally = self._tally
        self._page.enter(self._number)
        wanted = batch
        try:
            if self._wants is not None:
                wanted = [record for record in wanted if self._wants(record)]
            if wanted and self._filter is not None:
                wanted = [record for record in wanted if self._filter(record)]
            if self._handler is None:
                tally.lost += len(wanted)
            elif isinstance(self._handler, Sink):
                self._handler.handle(wanted)
            elif wanted:
                # a list of its own: another handler may change it
                self._handler.handle(list(wanted))
                tally.handled += len(wanted)
        except BaseException as error:  # noqa: BLE001
            tally.lost += len(wanted)
            self._failed("a handler failed", error)
        self._page.leave(self._number, tally)

    def handle_events(self, batch: list[Event]) -> None:
        """Pass the wanted events to the handler, if it subscribes to events."""
        if self._wants_event is None or not (wanted := list(filter(self._wants_event, batch))):
            return
        tally = self._tally
        self._page.enter(self._number)
        try:
            if self._handler is None:
                tally.lost_events += len(wanted)
            else:
                self._handler.handle_events(wanted)
                tally.events += len(wanted)
        except BaseException as error:  # noqa: BLE001
            tally.lost_events += len(wanted)
            self._failed("a handler failed", error)
        self._page.leave(self._number, tally)

    def tick(self) -> None:
        """Call the handler's `tick`; called about once a second."""
        if self._handler is None and time.monotonic() >= self._try_at:
            self.start()
        self._call("tick")

    def collect(self) -> Iterator[UserFamily]:
        """Yield the metrics of the handler's registry."""
        if getattr(getattr(self._handler, "registry", None), "collect", None) is None:
            return
        found: list[Any] = []
        self._page.enter(self._number)
        try:
            found = list(self._handler.registry.collect())
        except BaseException as error:  # noqa: BLE001
            self._failed("a handler's metrics cannot be collected", error)
        self._page.leave(self._number, self._tally)
        for metric in found:
            try:
                yield converted(metric)
            except Exception as error:  # noqa: BLE001 - a handler may return anything
                self._log.warning("a handler's metric is not shown", handler=self._label, reason=error)

    def close(self) -> None:
        """Call the handler's `close`."""
        self._call("close")

    def _call(self, method: str) -> None:
        if (call := getattr(self._handler, method, None)) is None:
            return
        self._page.enter(self._number)
        try:
            call()
        except BaseException as error:  # noqa: BLE001
            self._failed("a handler failed", error)
        self._page.leave(self._number, self._tally)

    def _failed(self, message: str, error: BaseException) -> None:
        self._tally.errors += 1
        expected = isinstance(error, loading.LoadError)
        self._log.warning(message, exc_info=not expected, handler=self._label, **({"reason": error} if expected else {}))
