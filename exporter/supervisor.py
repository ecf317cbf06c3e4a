"""Owns the source that runs: walks the ladder, drains it about once a second, watches it, steps down when it breaks, and climbs again.

One lock is around ledger and source, so that a scrape never sees a count twice or not at all while a drain or a switch moves it. The slow
part of each is done without it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass

from exporter.completeness import Completeness, Sample
from exporter.config import Config
from exporter.ladder import Rung, ladder, same_options, wanted
from exporter.ledger import Ledger, View
from exporter.loaders.direct import Loader
from exporter.log import fields
from exporter.model import NS, Counts, Gauges, Lost, Mode, ProcessCounts, SourceFailed, SwitchReason, Unusable
from exporter.overlap import run_both, settle, uncharged
from exporter.records import Hub
from exporter.sources.base import Source
from exporter.sources.procfs import Procfs

logger = logging.getLogger(__name__)

_STUCK_SECONDS = 30.0
_BLIND_TICKS = 3
_BLIND_CLONES = 10
"""A source that tells of clones as they happen and yet, in so many ticks in a row, missed more than half of so many, sees nothing more."""


@dataclass(slots=True)
class RungState:
    """What is known of a mode here."""

    usable: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is shown, as of one moment."""

    view: View
    gauges: Gauges
    mode: Mode | None
    why: str
    rungs: dict[Mode, RungState]
    degraded: bool
    switches: dict[tuple[Mode, SwitchReason], int]
    sample: Sample | None
    capture_ratio: float | None
    tracked_comms: int
    host_cpus: int | None
    records_dropped: dict[tuple[str, str], int]
    """By consumer and reason."""
    latency_buckets: list[int]
    """Of `records.Latencies`."""
    latency_sum_ns: int


class Supervisor:
    """`start`, then `tick` about each second, from one thread; `snapshot` and `busiest` from any."""

    def __init__(self, config: Config, hub: Hub, loader: Loader | None = None) -> None:
        """`loader` has the privileges that some modes take; without one this process is to have them."""
        self._config = config
        self._hub = hub
        self._loader = loader
        self._procfs = Procfs(config.procfs)
        self._rungs = {rung.mode: rung for rung in ladder(config, self._procfs, self._loader)}
        self._wanted = wanted(config)
        self._lock = threading.Lock()
        self._ledger = Ledger(config.metrics.max_comms, round(config.metrics.new_series_hold_seconds * NS))
        self._completeness = Completeness(self._procfs.kernel_clones)
        self._source: Source | None = None
        self._clones_before = 0
        self._last_sample: Sample | None = None
        self._blind_ticks = 0
        self._why = "no mode has been started yet"
        self._states: dict[Mode, RungState] = {}
        self._switches = {(mode, reason): 0 for mode in Mode for reason in SwitchReason}
        self._ticked = self._tried = time.monotonic()
        self._begun = False
        hub.on_change = self._publish

    def start(self) -> None:
        """Take the best mode that works. Raises `Unusable` if none of those wanted does."""
        self._take(SwitchReason.START)
        for mode, rung in self._rungs.items():
            if mode not in self._states:
                self._states[mode] = looked_at(rung)
        self._completeness.begin(self._clones)
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
                if due and source.mode != self._wanted[0]:
                    self._climb(source)
            except SourceFailed as failure:
                self._leave(source, failure)
        elif due:
            self._start_again(SwitchReason.RECOVERED)
        with self._lock:
            self._remember(self._sample())

    def reconfigure(self, config: Config) -> None:
        """Go on as `config` wants it. Raises `Unusable`, and goes on as before, where no mode that it wants can run."""
        before = self._config, self._rungs, self._wanted
        self._config = config
        self._rungs = {rung.mode: rung for rung in ladder(config, self._procfs, self._loader)}
        self._wanted = wanted(config)
        source = self._source
        try:
            if source is None:
                self._take(SwitchReason.CONFIG)
            else:
                self._follow(source, keep=same_options(before[0], config, source.mode))
        except Unusable:
            self._config, self._rungs, self._wanted = before
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
            sample = self._sample()
            mode = source.mode if source is not None else None
            view = self._ledger.view(counts)
            return Snapshot(
                view=view,
                gauges=gauges,
                mode=mode,
                why=self._why,
                rungs=dict(self._states),
                degraded=mode is not None and mode != self._wanted[0],
                switches=dict(self._switches),
                sample=sample or self._last_sample,
                capture_ratio=self._completeness.ratio(sample),
                tracked_comms=len(self._ledger.comms),
                host_cpus=self._procfs.host_cpus,
                records_dropped={("reader", "full"): view.counts.records_dropped} | self._hub.dropped(),
                latency_buckets=list(self._hub.latencies.buckets),
                latency_sum_ns=self._hub.latencies.sum_ns,
            )

    def busiest(self, n: int) -> tuple[list[tuple[str, ProcessCounts]], list[tuple[str, int]]]:
        """The `n` busiest comms with series, and the `n` busiest of those folded into `other`, as of the last drain."""
        with self._lock:
            return self._ledger.comms.busiest(n), self._ledger.comms.busiest_folded(n)

    def _take(self, reason: SwitchReason) -> None:
        """Start the best mode that is wanted and not known to be unusable, while none runs."""
        refusals: list[str] = []
        for mode in self._wanted:
            state = self._states.get(mode)
            if state is None or state.usable:
                source = self._started(mode)
                if source is not None:
                    with self._lock:
                        self._became(source, reason, refusals)
                    return
            refusals.append(f"{mode} can't run: {self._states[mode].reason}")
        self._why = "; ".join(refusals)
        raise Unusable(self._why)

    def _started(self, mode: Mode, old: Source | None = None) -> Source | None:
        """Start a mode, in place of `old` where that still runs."""
        try:
            source = self._rungs[mode].make()
            if old is None:
                source.start()
            else:
                run_both(old, source)
        except Unusable as refusal:
            self._refused(mode, str(refusal))
            return None
        self._states[mode] = RungState(usable=True, reason="")
        return source

    def _refused(self, mode: Mode, reason: str) -> None:
        known = self._states.get(mode)
        self._states[mode] = RungState(usable=False, reason=reason)
        if len(self._wanted) > 1 and (known is None or known.reason != reason):
            logger.warning("mode can't run here", extra=fields(mode=mode, reason=reason))

    def _climb(self, source: Source) -> None:
        """Try the modes that are better than the active one."""
        self._tried = self._ticked
        better = self._wanted[: self._wanted.index(source.mode)]
        with contextlib.suppress(Unusable):
            self._switch_to_best(source, better, SwitchReason.RECOVERED)

    def _follow(self, source: Source, *, keep: bool) -> None:
        """Do what a changed configuration wants. An active mode that is wanted as it is goes on unless a better one works."""
        keep = keep and source.mode in self._wanted
        modes = self._wanted[: self._wanted.index(source.mode)] if keep else self._wanted
        try:
            self._switch_to_best(source, modes, SwitchReason.CONFIG)
        except Unusable as refusal:
            if not keep:
                raise
            self._why = self._because(str(refusal))

    def _switch_to_best(self, source: Source, modes: list[Mode], reason: SwitchReason) -> None:
        """Let the best of `modes` that works take over. Raises `Unusable` if none does, `SourceFailed` if `source` broke meanwhile."""
        refusals: list[str] = []
        for mode in modes:
            refusal = self._rungs[mode].refusal()
            if refusal is not None:
                self._refused(mode, refusal)
            elif (new := self._started(mode, source)) is not None:
                with self._lock:
                    settled = self._settled(source, new)
                    self._absorb_last(source, settled)
                    self._became(new, reason, refusals)
                return
            refusals.append(f"{mode} can't run: {self._states[mode].reason}")
        raise Unusable("; ".join(refusals))

    def _publish(self) -> None:
        """Have the source hand out records as they are wanted now."""
        with self._lock:
            if self._source is not None:
                self._publish_of(self._source)

    def _publish_of(self, source: Source) -> None:
        if self._hub.wanted:
            try:
                source.publish(self._hub.publish, live=self._hub.live)
            except SourceFailed as failure:
                logger.error("no records of single processes", extra=fields(mode=source.mode, error=failure))  # noqa: TRY400

    def _settled(self, old: Source, new: Source) -> Counts:
        try:
            return settle(old, new, self._config.measures)
        except SourceFailed as failure:  # the next tick leaves it
            logger.error("what ended during the switch is lost", extra=fields(mode=new.mode, error=failure))  # noqa: TRY400
            return Counts()

    def _became(self, source: Source, reason: SwitchReason, refusals: list[str]) -> None:
        if refusals and reason is SwitchReason.START:
            reason = SwitchReason.UNAVAILABLE
        self._why = self._because("; ".join(refusals))
        self._source = source
        self._publish_of(source)
        self._blind_ticks = 0
        self._switches[source.mode, reason] += 1
        self._tried = time.monotonic()
        logger.info("mode is active", extra=fields(mode=source.mode, reason=reason, why=self._why))

    def _because(self, refusals: str) -> str:
        asked = "It was asked for." if len(self._wanted) == 1 else "It is the best mode there is, and it works here."
        return f"{refusals}." if refusals else asked

    def _leave(self, source: Source, failure: SourceFailed) -> None:
        """Keep what a broken source still has, and step down."""
        logger.error("mode failed", extra=fields(mode=source.mode, error=failure))
        self._states[source.mode] = RungState(usable=False, reason=f"it failed: {failure}")
        watched = self._last_sample
        with self._lock:
            self._source = None
            source.stop()
            self._absorb_last(source, uncharged(source))
        self._start_again(SwitchReason.FAILED)
        with self._lock:
            sample = self._sample()
            if watched is not None and sample is not None:
                gap = Counts()
                gap.lose(Lost.SWITCH_GAP, sample.kernel - watched.kernel)
                self._ledger.absorb(gap)

    def _start_again(self, reason: SwitchReason) -> None:
        self._tried = self._ticked
        if reason is SwitchReason.RECOVERED:
            self._states.clear()
        try:
            self._take(reason)
        except Unusable as nothing_left:
            logger.critical("no mode is left", extra=fields(reason=nothing_left))

    def _absorb_last(self, source: Source, settled: Counts) -> None:
        """Take over what a stopped source still has."""
        self._clones_before += source.clones()
        try:
            self._ledger.absorb(source.drain())
        except SourceFailed as loss:
            logger.error("what the mode had counted since its last drain is lost", extra=fields(mode=source.mode, error=loss))  # noqa: TRY400
        self._ledger.absorb(settled)

    def _drain(self, source: Source) -> None:
        source.rotate(self._ledger.names())
        with self._lock:
            self._ledger.absorb(source.drain())
        if self._blind_ticks >= _BLIND_TICKS:
            raise SourceFailed(f"it missed most of what the kernel started in each of {_BLIND_TICKS} seconds")

    def _remember(self, sample: Sample | None) -> None:
        before, source = self._last_sample, self._source
        self._completeness.tick(sample)
        self._last_sample = sample or before
        if sample is not None and before is not None and source is not None and source.immediate:
            kernel, observed = sample.kernel - before.kernel, sample.observed - before.observed
            self._blind_ticks = self._blind_ticks + 1 if kernel >= _BLIND_CLONES and observed < kernel / 2 else 0

    def _clones(self) -> int:
        return self._clones_before + (self._source.clones() if self._source is not None else 0)

    def _sample(self) -> Sample | None:
        source = self._source
        if source is None or not source.counts_host():
            return None
        return self._completeness.sample(self._clones, immediate=source.immediate)


def looked_at(rung: Rung) -> RungState:
    """What can be told of a mode without starting it."""
    refusal = rung.refusal()
    return RungState(refusal is None, refusal or "")
