"""Everything that metrics and pages show, at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.model import Gauges, Mode, SwitchReason
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
    capture_ratio: float | None
    host_cpus: int | None
    records_dropped: dict[tuple[str, str], int]
    """By consumer and reason."""
    latency_buckets: list[int]
    """Of `records.Latencies`."""
    latency_sum_ns: int
