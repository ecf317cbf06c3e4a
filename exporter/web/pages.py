"""Provides metrics, health and the page to the server, from the supervisor's snapshot."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from exporter import __version__
from exporter.config.options import Config
from exporter.metrics.exposition import Exposition
from exporter.metrics.formats import Format
from exporter.model import NS, Mode
from exporter.process import version
from exporter.records.fields import Json
from exporter.records.hub import Hub
from exporter.supervision.modes import MODES
from exporter.supervision.reload import LastReload
from exporter.supervision.snapshot import Snapshot
from exporter.supervision.supervisor import Supervisor
from exporter.web import lineage
from exporter.web.busiest import busiest
from exporter.web.charts import TimelineCharts
from exporter.web.landing import PageStatus, changes, render
from exporter.web.rankings import panels
from exporter.web.stream import MOST_RECORDS
from exporter.web.timeline import NOW_SECONDS, Timeline

if TYPE_CHECKING:
    from exporter.handlers.parent import Handlers

_LIMIT = 0.99
_LIMITS = {spec.mode: spec.capture_ratio or _LIMIT for spec in MODES}
"""Capture ratios below which the page is poor: where alerts begin, except that scan modes, which always miss some, are no exception."""


class Pages:
    """The exporter's `PageProvider`. Call `tick` about once a second."""

    def __init__(self, config: Config, supervisor: Supervisor, last_reload: LastReload, hub: Hub, handlers: Handlers | None = None) -> None:
        self.hub = hub
        self._config = config
        self._supervisor = supervisor
        self._exposition = Exposition(config, supervisor.snapshot, last_reload, handlers)
        self._started = time.time()
        self._timeline = Timeline()

    def metrics(self, form: Format) -> bytes:
        """Return the body of `/metrics`."""
        return self._exposition.render(form)

    def healthy(self) -> str | None:
        """Return why the supervising loop makes no progress, or None if it does."""
        return self._supervisor.stuck()

    def ready(self) -> str | None:
        """Return a reason while no mode is active, else None."""
        return None if self._supervisor.ready else "no mode is active yet"

    def tick(self) -> None:
        """Note the last seconds."""
        pulse = self._supervisor.pulse()
        self._timeline.note(time.monotonic_ns() // NS, pulse.short_exits)
        self.hub.stacks.note_dropped(pulse.records_dropped)

    def landing(self, records: bool) -> str:
        """Return the page at /, with or without single records."""
        recent = self.hub.newest(MOST_RECORDS) if records else None
        return render(self._status(records), self._config.web.telemetry_path, recent)

    def live(self, records: bool) -> Json:
        """Return the changing parts of that page."""
        return changes(self._status(records))

    def busiest(self, query: str) -> str:
        """The answer to a query at /api/v1/busiest. Raises `BadQuery`."""
        return busiest(self._supervisor.standings(), query)

    def lineage(self, query: str) -> tuple[str, str]:
        """Return the answer to a query at /api/v1/lineage, and its content type. Raises `BadQuery`."""
        return lineage.answer(self.hub.stacks, query)

    def _status(self, records: bool) -> PageStatus:
        snapshot = self._supervisor.snapshot()
        counts, seconds = snapshot.view.counts, self._timeline.seconds()
        return PageStatus(
            version=__version__,
            revision=version.revision(),
            host=os.uname().nodename,
            mode=snapshot.mode,
            why=snapshot.why,
            modes=tuple((mode, _state(mode, snapshot), status.reason) for mode, status in snapshot.modes.items()),
            last_minute=snapshot.last_minute,
            capture_limit=_LIMIT if snapshot.mode is None else _LIMITS[snapshot.mode],
            threshold_seconds=self._config.detection.short_threshold_seconds,
            started=self._started,
            ended_processes=sum(counts.total.exits),
            short_processes=counts.total.short_exits,
            rates=(seconds.last(NOW_SECONDS).per_second(), seconds.last(60).per_second(), seconds.last(300).per_second()),
            peak_per_second=snapshot.gauges.peak_per_second,
            timeline=TimelineCharts(seconds, time.time() - time.monotonic()),
            bounds_seconds=self._config.metrics.runtime_buckets_seconds,
            buckets=tuple(counts.total.buckets),
            rankings=tuple(panels(self._supervisor.standings())),
            lost=tuple((reason, n) for reason, n in counts.lost.items() if n and not reason.detail),
            incomplete=tuple((reason, n, reason.detail) for reason, n in counts.lost.items() if n and reason.detail),
            lineage=lineage.table(self.hub.stacks) if records else None,
            degraded=snapshot.degraded,
        )


def _state(mode: Mode, snapshot: Snapshot) -> str:
    if mode == snapshot.mode:
        return "active"
    return "usable" if snapshot.modes[mode].usable else "unusable"
