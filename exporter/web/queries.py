"""What the page says of a panel's metric: a query to copy, where it is documented, and the alert on it.

The documents come with the exporter. A link goes to the text itself, since they are plain Markdown.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from exporter.metrics.catalogue import DETAILS, DetectionMetrics, Family, TotalMetrics, by_dimension
from exporter.model.dimensions import EXITS, FAILED_EXITS, Dimension, Measure
from exporter.web.parts import escape

METRICS_DOCUMENT, RUNBOOK = "docs/metrics.md", "docs/runbook.md"
_AT_TEXT = "#:~:text="
_FAILED = '{outcome=~"error|signal"}'


class Query(NamedTuple):
    family: Family
    promql: str
    alert: str = ""

    def details(self, note: str = "") -> str:
        """Return it as HTML that can be unfolded. `note` is HTML already."""
        links = [f'<a href="{METRICS_DOCUMENT}{_AT_TEXT}{self.family.name}">{self.family.name}</a>']
        if self.alert:
            links.append(f'<a href="{RUNBOOK}{_AT_TEXT}%23%23%20{self.alert}">Runbook: {self.alert}</a>')
        return (
            f'<details class="query"><summary>PromQL</summary><pre><code>{escape(self.promql)}</code></pre>'
            f'<p class="soft">{escape(self.family.about)} {note} {" ".join(links)}</p></details>'
        )


BURSTS = Query(TotalMetrics.ENDED_SHORT, f"rate({TotalMetrics.ENDED_SHORT.name}[1m])", "ShortprocBurst")
RUNTIMES = Query(TotalMetrics.RUNTIME, f"histogram_quantile(0.9, rate({TotalMetrics.RUNTIME.name}_bucket[5m]))")
COMPLETENESS = Query(DetectionMetrics.RATIO, DetectionMetrics.RATIO.name, "ShortprocCaptureRatioLow")
MODES = Query(DetectionMetrics.MODE, f"{DetectionMetrics.MODE.name} == 1", "ShortprocModeDegraded")
LOSSES = Query(DetectionMetrics.LOST, f'increase({DetectionMetrics.LOST.name}{{reason!~"{DETAILS}"}}[10m]) > 0', "ShortprocEventsLost")
INCOMPLETE = Query(DetectionMetrics.LOST, f'increase({DetectionMetrics.LOST.name}{{reason=~"{DETAILS}"}}[10m]) > 0')

_ALERTS = {
    ("comm", "short_exits"): "ShortprocBurst",
    ("comm", "failed_exits"): "ShortprocCrashLoop",
    ("comm", "short_cpu_seconds"): "ShortprocCpuHigh",
    ("owner", "short_exits"): "ShortprocOwnerBurst",
    ("owner", "failed_exits"): "ShortprocOwnerFailing",
}
"""By dimension and measure."""


def of_ranking(dimension: Dimension[Any], measure: Measure) -> Query:
    """Return the query whose answer is like the page's ranking, of the last 5 minutes."""
    if measure is FAILED_EXITS and measure not in dimension.measures:
        family = by_dimension(dimension, EXITS)
        rates = f"sum without (outcome) (rate({family.name}{_FAILED}[5m]))"
    else:
        family = by_dimension(dimension, measure)
        rates = f"rate({family.name}[5m])"
    return Query(family, f"topk by (instance) (10, {rates})", _ALERTS.get((dimension.name, measure.name), ""))
