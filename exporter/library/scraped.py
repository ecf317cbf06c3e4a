"""Totals from the metrics of another exporter."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from exporter.library.processes import Totals
from exporter.model import NS, Lost, Mode, Outcome

_WANTED = ("shortproc_ended_", "shortproc_forked_", "shortproc_cloned_", "shortproc_execs_", "shortproc_detection_")


def totals(text: str) -> Totals:
    """Read an answer of `/metrics` in Prometheus' text format. It trusts nothing: raises an error, or returns valid totals."""
    lines = (line for line in text.splitlines() if line.startswith(_WANTED))
    values: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            labels = "/".join(sample.labels.values())
            values.setdefault(sample.name.removeprefix("shortproc_"), {})[labels] = float(sample.value)
    exits, lost = values["ended_processes_total"], values["detection_lost_total"]
    return Totals(
        exits={outcome: int(exits[outcome]) for outcome in Outcome},
        short=int(_one(values, "ended_short_processes_total")),
        cpu_ns=round(_one(values, "ended_processes_cpu_seconds_total") * NS),
        short_cpu_ns=round(_one(values, "ended_short_processes_cpu_seconds_total") * NS),
        forks=int(_one(values, "forked_processes_total")),
        threads=int(_one(values, "cloned_threads_total")),
        execs=int(_one(values, "execs_total")),
        lost={str(reason): int(lost[reason]) for reason in Lost if reason in lost},
        capture_ratio=values.get("detection_capture_ratio", {}).get(""),
        mode=next((Mode(name) for name, value in values["detection_mode"].items() if value == 1), None),
    )


def _one(values: Mapping[str, Mapping[str, float]], name: str) -> float:
    return values.get(name, {}).get("", 0.0)
