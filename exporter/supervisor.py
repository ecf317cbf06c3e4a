"""Owns the source that runs: walks the ladder, drains it about once a second, and steps down when it breaks.

One lock is around ledger and source, so that a scrape never sees a count twice or not at all while a drain moves it. The slow part of a
drain (`rotate`) is done without it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass

from exporter.completeness import Completeness, Sample
from exporter.config import Config
from exporter.ladder import LATER, Rung, ladder, wanted
from exporter.ledger import Ledger, View
from exporter.log import fields
from exporter.model import NS, Counts, Gauges, Mode, ProcessCounts, SourceFailed, SwitchReason, Unusable
from exporter.sources.base import Source
from exporter.sources.procfs import Procfs

logger = logging.getLogger(__name__)

_STUCK_SECONDS = 30.0


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


class Supervisor:
    """`start`, then `tick` about each second, from one thread; `snapshot` and `busiest` from any."""

    def __init__(self, config: Config) -> None:
        self._procfs = Procfs(config.procfs)
        self._rungs = {rung.mode: rung for rung in ladder(config, self._procfs)}
        self._wanted = wanted(config)
        self._lock = threading.Lock()
        self._ledger = Ledger(config.metrics.max_comms, round(config.metrics.new_series_hold_seconds * NS))
        self._completeness = Completeness(self._procfs.kernel_clones)
        self._source: Source | None = None
        self._clones_before = 0
        self._last_sample: Sample | None = None
        self._why = "no mode has been started yet"
        self._states: dict[Mode, RungState] = {}
        self._switches = {(mode, reason): 0 for mode in Mode for reason in SwitchReason}
        self._ticked = time.monotonic()
        self._begun = False

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
        """Drain the source; if it broke, take the next one that works."""
        self._ticked = time.monotonic()
        source = self._source
        if source is None:
            return
        try:
            source.rotate(self._ledger.names())
            with self._lock:
                self._ledger.absorb(source.drain())
        except SourceFailed as failure:
            self._leave(source, failure)
        with self._lock:
            sample = self._sample()
            self._completeness.tick(sample)
            self._last_sample = sample or self._last_sample

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
            view = self._ledger.view(counts)
            sample = self._sample()
            ratio = self._completeness.ratio(sample)
        mode = source.mode if source is not None else None
        return Snapshot(
            view=view,
            gauges=gauges,
            mode=mode,
            why=self._why,
            rungs=dict(self._states),
            degraded=mode is not None and mode != self._wanted[0],
            switches=dict(self._switches),
            sample=sample or self._last_sample,
            capture_ratio=ratio,
            tracked_comms=len(self._ledger.comms),
        )

    def busiest(self, n: int) -> tuple[list[tuple[str, ProcessCounts]], list[tuple[str, int]]]:
        """The `n` busiest comms with series, and the `n` busiest of those folded into `other`, as of the last drain."""
        with self._lock:
            return self._ledger.comms.busiest(n), self._ledger.comms.busiest_folded(n)

    def _take(self, reason: SwitchReason) -> None:
        """Start the best mode that is wanted and not known to be unusable."""
        refusals: list[str] = []
        for mode in self._wanted:
            state = self._states.get(mode)
            if state is None or state.usable:
                try:
                    source = self._rungs[mode].make()
                    source.start()
                except Unusable as refusal:
                    state = self._states[mode] = RungState(usable=False, reason=str(refusal))
                    if len(self._wanted) > 1:
                        level = logging.INFO if state.reason == LATER else logging.WARNING
                        logger.log(level, "mode can't run here", extra=fields(mode=mode, reason=refusal))
                else:
                    self._states[mode] = RungState(usable=True, reason="")
                    self._became(source, reason, refusals)
                    return
            if state.reason != LATER or len(self._wanted) == 1:
                refusals.append(f"{mode} can't run: {state.reason}")
        self._why = "; ".join(refusals)
        raise Unusable(self._why)

    def _became(self, source: Source, reason: SwitchReason, refusals: list[str]) -> None:
        if refusals and reason is SwitchReason.START:
            reason = SwitchReason.UNAVAILABLE
        asked = "It was asked for." if len(self._wanted) == 1 else "It is the best mode there is, and it works here."
        self._why = f"{'; '.join(refusals)}." if refusals else asked
        with self._lock:
            self._source = source
        self._switches[source.mode, reason] += 1
        logger.info("mode is active", extra=fields(mode=source.mode, reason=reason, why=self._why))

    def _leave(self, source: Source, failure: SourceFailed) -> None:
        """Keep what a broken source still has, and step down."""
        logger.error("mode failed", extra=fields(mode=source.mode, error=failure))
        self._states[source.mode] = RungState(usable=False, reason=f"it failed: {failure}")
        with self._lock:
            self._source = None
            try:
                self._clones_before += source.clones()
                source.stop()
                self._ledger.absorb(source.drain())
            except SourceFailed as loss:
                logger.error("what the mode had counted since its last drain is lost", extra=fields(mode=source.mode, error=loss))  # noqa: TRY400
        try:
            self._take(SwitchReason.FAILED)
        except Unusable as nothing_left:
            logger.critical("no mode is left", extra=fields(reason=nothing_left))

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
