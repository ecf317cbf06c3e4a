"""Owns the active source: starts the best mode that works, drains it about once a second, falls back, and retries better modes.

One lock covers ledger, health and sources, so that a scrape never sees a count twice, or misses it, while a drain or a switch moves it.
Nothing slow is done under the lock: no start, no stop, no wait.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from exporter.attribution.attributor import Attributor, By
from exporter.attribution.container_names import ContainerNames
from exporter.attribution.owners import Owners
from exporter.attribution.users import Users
from exporter.attribution.who import who
from exporter.config.options import Config
from exporter.kernel.procfs import Procfs
from exporter.loaders.base import Loader
from exporter.model import NS, Gauges, Mode, ModeUnavailable, SourceFailed, SwitchReason
from exporter.model.activity import Standing
from exporter.model.counts import Counts
from exporter.model.dimensions import Dimension
from exporter.model.ledger import Ledger
from exporter.process.log import fields
from exporter.records.hub import Hub
from exporter.sources.base import Source
from exporter.supervision.completeness import no_ratio
from exporter.supervision.health import Health
from exporter.supervision.modes import MODES, ModeSpec
from exporter.supervision.selector import ModeSelector, same_options
from exporter.supervision.snapshot import Pulse, Snapshot
from exporter.supervision.switchover import Retiring, Running, discard, take_over

logger = logging.getLogger(__name__)

_STUCK_SECONDS = 30.0


class Supervisor:
    """Call `start`, then `tick` about once a second, from one thread; `snapshot` and `standings` from any thread."""

    def __init__(self, config: Config, hub: Hub, loader: Loader, specs: Sequence[ModeSpec] = MODES) -> None:
        """`loader` has the privileges that some modes need; `specs` are all modes, best first."""
        self._config = config
        self._hub = hub
        self._procfs = Procfs(config.procfs)
        self._selector = ModeSelector(config, self._procfs, loader, specs)
        self._lock = threading.Lock()
        self._container_names = ContainerNames(runtime_state=loader.container_names)
        owners, passwd = Owners(config.attribution.pods, self._container_names), config.attribution.passwd_file
        self._attributor = Attributor(owners.owner, Users(passwd).name, config.caps)
        hub.who = who(Owners(config.attribution.pods, self._container_names), Users(passwd).name)  # its own, for the threads that publish
        self._ledger = Ledger(config.caps, round(config.metrics.new_series_hold_seconds * NS))
        self._health = Health(self._procfs.kernel_clones, {spec.mode for spec in specs if spec.clones_at_once})
        self._active: Running | None = None
        self._retiring: Retiring | None = None
        self._why = "no mode has been started yet"
        self._switches = {(spec.mode, reason): 0 for spec in specs for reason in SwitchReason}
        self._ticked = self._tried = time.monotonic()
        self._begun = False
        self.no_events: str | None = None
        """Why the active mode tells no events though there are subscribers, one sentence; else None."""
        hub.on_change, hub.events.on_change = self._publish, self._publish_events

    def start(self) -> None:
        """Start the best mode that works. Raises `ModeUnavailable` if no allowed mode works."""
        source = self._start_best(SwitchReason.START)
        self._selector.probe_rest(source.mode)
        self._health.begin(source)
        if reason := no_ratio(self._procfs):
            logger.warning(reason)
        self.tick()
        self._begun = True

    def tick(self) -> None:
        """Drain the source. If it failed, fall back to the next mode that works. Retry better modes when that is due."""
        self._ticked = time.monotonic()
        due = self._ticked - self._tried >= self._config.detection.retry_seconds
        if self._retiring is not None and self._retiring.is_done():
            self._finish_retiring()
        active = self._active
        if active is not None:
            try:
                self._drain(active)
                if due and active.source.mode != self._selector.best:
                    self._climb(active)
            except SourceFailed as failure:
                self._leave(active, failure)
        elif due:
            self._start_any(SwitchReason.RECOVERED, retry=True)
        with self._lock:
            self._health.tick(self._source)

    def reconfigure(self, config: Config) -> None:
        """Apply `config`, and retry modes that could not run.

        Raises `ModeUnavailable`, and keeps the previous configuration, if no mode that it allows can run.
        """
        before, active = self._config, self._active
        self._config = config
        self._selector.configure(config)
        try:
            if active is None:
                source = self._start_best(SwitchReason.CONFIG, retry=True)
            else:
                source = self._follow(active, keep=same_options(before.detection, config.detection, active.source.mode))
            self._selector.probe_rest(source.mode)
        except ModeUnavailable:
            self._config = before
            self._selector.configure(before)
            raise
        except SourceFailed as failure:
            if active is not None:
                self._leave(active, failure)

    def switch(self, modes: list[Mode], reason: SwitchReason) -> Source:
        """Switch to the best of `modes` that works.

        Raises `ModeUnavailable` if none works, `SourceFailed` if the active one failed.
        """
        active = self._active
        if active is None:
            raise ModeUnavailable(self._why)
        retiring: list[Retiring] = []

        def start(source: Source) -> None:
            self._finish_retiring()  # there are never more than two
            retiring.append(take_over(active, source, self._publish_if_wanted))

        new, refusals = self._selector.start_best(modes, start)
        with self._lock:
            self._retire(retiring[0])
            self._became(new, reason, refusals)
        return new

    def stop(self) -> None:
        """Stop the sources and release everything."""
        with self._lock:  # there are no more scrapes
            active, retiring = self._active, self._retiring
            self._active = self._retiring = None
        for each in (active, retiring.running if retiring is not None else None):
            if each is not None:
                discard(each.source)
        self._container_names.close()
        self._procfs.close()

    def stuck(self) -> str | None:
        """Return why the supervising loop is stuck, or None."""
        idle = time.monotonic() - self._ticked
        return f"the supervising loop has made no progress for {idle:.0f} s" if idle > _STUCK_SECONDS else None

    @property
    def mode(self) -> Mode | None:
        """The active mode."""
        source = self._source
        return source.mode if source is not None else None

    @property
    def ready(self) -> bool:
        """Whether a mode is active, and scrapes are complete."""
        return self._begun and self._active is not None

    @property
    def switching(self) -> bool:
        """Whether late data of the previous source may still arrive."""
        return self._retiring is not None

    @property
    def _source(self) -> Source | None:
        active = self._active
        return active.source if active is not None else None

    def snapshot(self) -> Snapshot:
        """Return everything that can be shown. Changes nothing."""
        with self._lock:
            source = self._source
            counts = self._active.peek() if self._active is not None else Counts()
            if self._retiring is not None:
                counts = counts.copy()
                counts.add(self._retiring.running.peek())
            sample = self._health.sample(source)
            mode = source.mode if source is not None else None
            view = self._ledger.view(counts)
            return Snapshot(
                view=view,
                gauges=self._gauges(),
                mode=mode,
                why=self._why,
                modes=dict(self._selector.statuses),
                degraded=mode is not None and mode != self._selector.best,
                switches=dict(self._switches),
                sample=sample or self._health.last,
                last_minute=self._health.last_minute(sample),
                host_cpus=self._procfs.host_cpus,
                records_dropped={("reader", "full"): view.counts.records_dropped} | self._hub.dropped(),
                events_dropped={(kind, "reader", reason): n for (kind, reason), n in view.counts.events_dropped.items()}
                | self._hub.events.dropped(),
                latency_buckets=list(self._hub.latencies.buckets),
                latency_sum_ns=self._hub.latencies.sum_ns,
            )

    def pulse(self) -> Pulse:
        """Return what is noted each second."""
        with self._lock:
            return Pulse(self._gauges().short_exits, self._ledger.records_dropped)

    def standings(self) -> dict[Dimension[Any], Standing[Any]]:
        """Return how busy the keys of each dimension were, as of the last drain."""
        with self._lock:
            return self._ledger.standings()

    def _gauges(self) -> Gauges:
        """Return the gauges of the active source. Seconds around a switch have the short exits of both sources."""
        gauges = self._active.gauges() if self._active is not None else Gauges()
        earlier = self._retiring.running.gauges().short_exits if self._retiring is not None else None
        return gauges if earlier is None else gauges.with_short_exits(earlier)

    def _start_best(self, reason: SwitchReason, *, retry: bool = False) -> Source:
        """Start the best mode that works, while none is active; see `ModeSelector.start_best`."""
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

    def _climb(self, active: Running) -> None:
        """Retry the modes that are better than the active one."""
        self._tried = self._ticked
        with contextlib.suppress(ModeUnavailable):
            self.switch(self._selector.above(active.source.mode), SwitchReason.RECOVERED)

    def _follow(self, active: Running, *, keep: bool) -> Source:
        """Apply a changed configuration. An active mode that it keeps stays active unless a better one works."""
        mode = active.source.mode
        keep = keep and mode in self._selector.wanted
        try:
            return self.switch(self._selector.above(mode) if keep else self._selector.wanted, SwitchReason.CONFIG)
        except ModeUnavailable as refusal:
            if not keep:
                raise
            self._why = self._selector.why(str(refusal))
            return active.source

    def _leave(self, active: Running, failure: SourceFailed) -> None:
        """Keep the remaining counts of a failed source, and fall back."""
        mode = active.source.mode
        logger.error("mode failed", extra=fields(mode=mode, error=failure))
        self._selector.failed(mode, str(failure))
        self._finish_retiring()
        with self._lock:
            self._retire(Retiring(active, time.monotonic_ns()))
        self._finish_retiring()
        self._start_any(SwitchReason.FAILED, retry=False)

    def _retire(self, retiring: Retiring) -> None:
        self._health.retiring(retiring.running.source)
        self._active, self._retiring = None, retiring

    def _finish_retiring(self) -> None:
        """Stop the previously active source, if there is one, and absorb its remaining counts."""
        retiring = self._retiring
        if retiring is None:
            return
        source = retiring.running.source
        source.stop()
        by = self._attributed(source)
        with self._lock:
            self._health.ended(source)
            rest = retiring.rest()
            rest.add_breakdowns(self._attributor.without_origins(rest.total) if by is None else by)
            self._ledger.absorb(rest)
            self._retiring = None

    def _attributed(self, source: Source) -> By | None:
        """Return for whom processes ran since the last time, or None if the source has failed. Not under the lock: it may be slow."""
        try:
            return self._attributor.attribute(source.origins())
        except SourceFailed:
            return None

    def _became(self, source: Source, reason: SwitchReason, refusals: str) -> None:
        self._why = self._selector.why(refusals)
        self._active = Running(source)
        self._publish_if_wanted(source)
        self._switches[source.mode, reason] += 1
        self._tried = time.monotonic()
        logger.info("mode is active", extra=fields(mode=source.mode, reason=reason, why=self._why))
        if self.no_events is not None:
            logger.warning("there are no events for handlers", extra=fields(mode=source.mode, reason=self.no_events))

    def _publish(self) -> None:
        """Have the source publish records as the consumers need them now."""
        with self._lock:
            if self._active is not None:
                self._publish_of(self._active.source)

    def _publish_if_wanted(self, source: Source) -> None:
        if self._hub.wanted:
            self._publish_of(source)
        if self._hub.events.wanted:
            self._publish_events_of(source)

    def _publish_events(self) -> None:
        """Have the source publish events, for a new consumer."""
        with self._lock:
            if self._active is not None:
                self._publish_events_of(self._active.source)

    def _publish_events_of(self, source: Source) -> None:
        reason = source.publish_events(self._hub.events.publish)
        if source is self._source:  # not one that may still fail to take over
            self.no_events = reason

    def _publish_of(self, source: Source) -> None:
        try:
            dated = self._selector.specs[source.mode].dates_exits
            source.publish(partial(self._hub.publish, dated=dated), live=self._hub.live, follows=self._hub)
        except SourceFailed as failure:
            logger.error("cannot read per-process records; counters are unaffected", extra=fields(mode=source.mode, error=failure))  # noqa: TRY400

    def _drain(self, active: Running) -> None:
        active.source.swap_maps(self._ledger.tracked())
        by = self._attributed(active.source)
        with self._lock:
            counts = active.drain()
            counts.add_breakdowns(by or {})
            self._ledger.absorb(counts)
        self._health.check()
