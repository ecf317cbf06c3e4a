"""Everything that metrics and pages show, at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from exporter.model import Gauges, Mode, SwitchReason
from exporter.model.events import EventKind
from exporter.model.ledger import View
from exporter.supervision.completeness import Sample
from exporter.supervision.selector import ModeStatus


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The input of metrics and pages."""

    view: View
    gauges: Gauges
    mode: Mode | None
    why: str
    modes: dict[Mode, ModeStatus]
    """All modes, best first."""
    degraded: bool
    switches: dict[tuple[Mode, SwitchReason], int]
    sample: Sample | None
    last_minute: Sample | None
    """Clones of the last 60 s; None if unknown."""
    host_cpus: int | None
    records_dropped: dict[tuple[str, str], int]
    """By consumer and reason."""
    events_dropped: dict[tuple[EventKind, str, str], int]
    """By kind, consumer and reason."""
    latency_buckets: list[int]
    """Of `records.Latencies`."""
    latency_sum_ns: int

    @property
    def capture_ratio(self) -> float | None:
        """The observed fraction of the clones of the last 60 s."""
        return None if self.last_minute is None else self.last_minute.ratio


class Pulse(NamedTuple):
    """What changes each second and costs next to nothing to read."""

    short_exits: Mapping[int, int] | None
    """See `Gauges.short_exits`."""
    records_dropped: int
    """As of the last drain: records that the source itself dropped since the exporter started."""
