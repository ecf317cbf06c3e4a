"""Owns the source that runs: takes the best that works, drains it about once a second, steps down when it breaks, and climbs again.

One lock is around ledger, health and source, so that a scrape never sees a count twice or not at all while a drain or a switch moves it.
The slow part of each is done without it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from functools import partial

from exporter.config.options import Config
from exporter.kernel.procfs import Procfs
from exporter.loaders.base import Loader
from exporter.model import NS, Gauges, Mode, ModeUnavailable, SourceFailed, SwitchReason
from exporter.model.counts import Counts, ProcessCounts
from exporter.model.ledger import Ledger
from exporter.process.log import fields
from exporter.records.hub import Hub
from exporter.sources.base import Source
from exporter.supervision.health import Health
from exporter.supervision.modes import MODES, ModeSpec
from exporter.supervision.selector import ModeSelector, same_options
from exporter.supervision.snapshot import Snapshot
from exporter.supervision.switchover import cpu_pending, run_both, settle

logger = logging.getLogger(__name__)

_STUCK_SECONDS = 30.0


class Supervisor:
    """`start`, then `tick` about each second, from one thread; `snapshot` and `busiest` from any."""

    def __init__(self, config: Config, hub: Hub, loader: Loader, specs: Sequence[ModeSpec] = MODES) -> None:
        """`loader` has the privileges that some modes take; `specs` are all modes, best first."""
        self._config = config
        self._hub = hub
        self._procfs = Procfs(config.procfs)
        self._selector = ModeSelector(config, self._procfs, loader, specs)
        self._lock = threading.Lock()
        self._ledger = Ledger(config.metrics.max_comms, round(config.metrics.new_series_hold_seconds * NS))
        self._health = Health(self._procfs.kernel_clones, {spec.mode for spec in specs if spec.clones_at_once})
        self._source: Source | None = None
        self._why = "no mode has been started yet"
        self._switches = {(spec.mode, reason): 0 for spec in specs for reason in SwitchReason}
        self._ticked = self._tried = time.monotonic()
        self._begun = False
        hub.on_change = self._publish

    def start(self) -> None:
        """Take the best mode that works. Raises `ModeUnavailable` if none of those wanted does."""
        source = self._start_best(SwitchReason.START)
        self._selector.probe_rest(source.mode)
        self._health.begin(source)
        self.tick()
        self._begun = True

    def tick(self) -> None:
        """Drain the source; if it broke, take the next one that works. From time to time, try those that are better."""
        self._ticked = time.monotonic()
        due = self._ticked - self._tried >= self._config.detection.retry_seconds
        source = self._source
        if source is not None:
            try:
                self._drain(source)
                if due and source.mode != self._selector.best:
                    self._climb(source)
            except SourceFailed as failure:
                self._leave(source, failure)
        elif due:
            self._start_any(SwitchReason.RECOVERED, retry=True)
        with self._lock:
            self._health.tick(self._source)

    def reconfigure(self, config: Config) -> None:
        """Go on as `config` wants it, and try again what could not run.

        Raises `ModeUnavailable`, and goes on as before, where no mode that it wants can run.
        """
        before, source = self._config, self._source
        self._config = config
        self._selector.configure(config)
        try:
            if source is None:
                source = self._start_best(SwitchReason.CONFIG, retry=True)
            else:
                source = self._follow(source, keep=same_options(before, config, source.mode))
            self._selector.probe_rest(source.mode)
        except ModeUnavailable:
            self._config = before
            self._selector.configure(before)
            raise
        except SourceFailed as failure:
            if source is not None:
                self._leave(source, failure)

    def stop(self) -> None:
        """Detach and give everything back."""
        with self._lock:
            source, self._source = self._source, None
        if source is not None:
            source.stop()
            with contextlib.suppress(SourceFailed):  # nobody will look at it any more
                source.drain()
        self._procfs.close()

    def stuck(self) -> str | None:
        """Why the supervising loop is not well, or None."""
        idle = time.monotonic() - self._ticked
        return f"the supervising loop has stood still for {idle:.0f} s" if idle > _STUCK_SECONDS else None

    @property
    def mode(self) -> Mode | None:
        """The active mode."""
        source = self._source
        return source.mode if source is not None else None

    @property
    def ready(self) -> bool:
        """Whether a source runs, be it the best or not, and a scrape shows all there is to show."""
        return self._begun and self._source is not None

    def snapshot(self) -> Snapshot:
        """Look at everything; changes nothing."""
        with self._lock:
            source = self._source
            counts, gauges = (source.peek(), source.gauges()) if source is not None else (Counts(), Gauges())
            sample = self._health.sample(source)
            mode = source.mode if source is not None else None
            view = self._ledger.view(counts)
            return Snapshot(
                view=view,
                gauges=gauges,
                mode=mode,
                why=self._why,
                modes=dict(self._selector.statuses),
                degraded=mode is not None and mode != self._selector.best,
                switches=dict(self._switches),
                sample=sample or self._health.last,
                capture_ratio=self._health.ratio(sample),
                tracked_comms=len(self._ledger.comms),
                host_cpus=self._procfs.host_cpus,
                records_dropped={("reader", "full"): view.counts.records_dropped} | self._hub.dropped(),
                latency_buckets=list(self._hub.latencies.buckets),
                latency_sum_ns=self._hub.latencies.sum_ns,
            )

    def busiest(self, n: int) -> tuple[list[tuple[str, ProcessCounts]], list[tuple[str, int]]]:
        """The `n` busiest comms with series, and the `n` busiest of those overflowed into `other`, as of the last drain."""
        with self._lock:
            return self._ledger.comms.busiest(n), self._ledger.comms.busiest_overflowed(n)

    def _start_best(self, reason: SwitchReason, *, retry: bool = False) -> Source:
        """Start the best mode that works, while none runs; see `ModeSelector.start_best`."""
        source, refusals = self._selector.start_best(self._selector.wanted, lambda source: source.start(), retry=retry)
        with self._lock:
            self._became(source, SwitchReason.UNAVAILABLE if refusals and reason is SwitchReason.START else reason, refusals)
            self._ledger.absorb(self._health.gap(source))
        return source

    def _start_any(self, reason: SwitchReason, *, retry: bool) -> None:
        self._tried = self._ticked
        try:
            self._start_best(reason, retry=retry)
        except ModeUnavailable as nothing_left:
            self._why = str(nothing_left)
            logger.critical("no mode is left", extra=fields(reason=nothing_left))

    def _climb(self, source: Source) -> None:
        """Try the modes that are better than the active one."""
        self._tried = self._ticked
        with contextlib.suppress(ModeUnavailable):
            self._replace(source, self._selector.above(source.mode), SwitchReason.RECOVERED)

    def _follow(self, source: Source, *, keep: bool) -> Source:
        """Do what a changed configuration wants. An active mode that is wanted as it is goes on unless a better one works."""
        keep = keep and source.mode in self._selector.wanted
        try:
            return self._replace(source, self._selector.above(source.mode) if keep else self._selector.wanted, SwitchReason.CONFIG)
        except ModeUnavailable as refusal:
            if not keep:
                raise
            self._why = self._selector.why(str(refusal))
            return source

    def _replace(self, old: Source, modes: list[Mode], reason: SwitchReason) -> Source:
        """Let the best of `modes` that works take over. Raises `ModeUnavailable` if none does, `SourceFailed` if `old` broke meanwhile."""
        new, refusals = self._selector.start_best(modes, lambda source: run_both(old, source))
        with self._lock:
            settled = self._settled(old, new)
            self._absorb_last(old, settled)
            self._became(new, reason, refusals)
        return new

    def _leave(self, source: Source, failure: SourceFailed) -> None:
        """Keep what a broken source still has, and step down."""
        logger.error("mode failed", extra=fields(mode=source.mode, error=failure))
        self._selector.failed(source.mode, str(failure))
        with self._lock:
            self._source = None
            source.stop()
            self._absorb_last(source, cpu_pending(source))
        self._start_any(SwitchReason.FAILED, retry=False)

    def _became(self, source: Source, reason: SwitchReason, refusals: str) -> None:
        self._why = self._selector.why(refusals)
        self._source = source
        if self._hub.wanted:
            self._publish_of(source)
        self._switches[source.mode, reason] += 1
        self._tried = time.monotonic()
        logger.info("mode is active", extra=fields(mode=source.mode, reason=reason, why=self._why))

    def _publish(self) -> None:
        """Have the source hand out records as they are wanted now."""
        with self._lock:
            if self._source is not None:
                self._publish_of(self._source)

    def _publish_of(self, source: Source) -> None:
        try:
            dated = self._selector.specs[source.mode].dates_exits
            source.publish(partial(self._hub.publish, dated=dated), live=self._hub.live)
        except SourceFailed as failure:
            logger.error("no records of single processes", extra=fields(mode=source.mode, error=failure))  # noqa: TRY400

    def _settled(self, old: Source, new: Source) -> Counts:
        try:
            return settle(old, new, self._config.runtime_scale)
        except SourceFailed as failure:  # the next tick leaves it
            logger.error("what ended during the switch is lost", extra=fields(mode=new.mode, error=failure))  # noqa: TRY400
            return Counts()

    def _absorb_last(self, source: Source, settled: Counts) -> None:
        """Take over what a stopped source still has."""
        self._health.ended(source)
        try:
            self._ledger.absorb(source.drain())
        except SourceFailed as loss:
            logger.error("what the mode had counted since its last drain is lost", extra=fields(mode=source.mode, error=loss))  # noqa: TRY400
        self._ledger.absorb(settled)

    def _drain(self, source: Source) -> None:
        source.swap_maps(self._ledger.names())
        with self._lock:
            self._ledger.absorb(source.drain())
        self._health.check()
