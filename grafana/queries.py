"""PromQL: raw metrics only, so that the pages need no recording rules. Names of metrics stand in fleet.py and host.py, and here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from exporter.supervision.modes import MODES

TOP = 10
HOST = "job, instance"
BY_HOST = f"by ({HOST})"
CONTAINER_CPU = "container_cpu_usage_seconds_total"
"""Of cAdvisor, whose job and instance are others than ours. The names of pods are enough: they are unique in a cluster."""
SHORT, ENDED = "shortproc_ended_short_processes_total", "shortproc_ended_processes_total"
SHORT_CPU = "shortproc_ended_short_processes_cpu_seconds_total"
FLOOR = 7
"""Short processes a second that count as usual in any case: three times as many is where ShortprocBurst begins."""
WHOLE = 0.999
"""From this share on, what was seen counts as all: both sides are counted at slightly different moments."""


class Verdict(NamedTuple):
    """One of the answers to "is the data complete?". Of each host exactly one of them has a series, the share seen if known."""

    name: str
    expr: str


@dataclass(frozen=True, slots=True)
class Scope:
    """The hosts that a page is about."""

    matchers: str

    def of(self, metric: str, *more: str) -> str:
        """Its series."""
        return f"{metric}{{{', '.join((self.matchers, *more))}}}"

    def rate(self, metric: str, *more: str) -> str:
        """How fast it grows, a second."""
        return f"rate({self.of(metric, *more)}[$__rate_interval])"

    def grown(self, metric: str, *more: str) -> str:
        """By how much it grew in the time shown."""
        return f"increase({self.of(metric, *more)}[$__range])"

    def top(self, label: str, metric: str, *more: str) -> str:
        """Rates by a label; the same few at each step, those that grew most in the time shown."""
        ranks = f"increase({self.of(metric, *more)}[$__range] @ end())"
        return f"sum by ({label}) ({self.rate(metric, *more)}) and topk({TOP}, sum by ({label}) ({ranks}))"

    def top_owners(self, metric: str) -> str:
        """Rates by owner, as `top`, of the owners that are chosen."""
        ranks = f"increase({self.of(metric)}[$__range] @ end())"
        return f"sum by (owner) ({chosen(self.rate(metric))}) and topk({TOP}, sum by (owner) ({chosen(ranks)}))"

    def by_owner(self, metric: str, *more: str) -> str:
        """Growth in the time shown, by owner and more labels, of the owners that are chosen."""
        return f"sum by ({', '.join(('owner', *more))}) ({chosen(self.grown(metric))})"

    def cpu_of_containers(self) -> str:
        """Of the CPU that a container of a pod used, by cAdvisor's count, what its short processes did."""
        container = "namespace, pod, container"
        short = self.rate("shortproc_owner_short_cpu_seconds_total", 'kind="pod"')
        used = f'rate({CONTAINER_CPU}{{container!=""}}[$__rate_interval])'
        return owned(
            f"topk({TOP}, sum by (kind, {container}) ({short}) / on ({container}) group_left () (sum by ({container}) ({used}) > 0))"
        )

    def highest(self, gauge: str) -> str:
        """A gauge by host, on the hosts where it was highest in the time shown."""
        peaks = f"max_over_time({self.of(gauge)}[$__range] @ end())"
        return f"max {BY_HOST} (max_over_time({self.of(gauge)}[$__rate_interval])) and topk({TOP}, max {BY_HOST} ({peaks}))"

    def lowest(self, gauge: str) -> str:
        """A gauge by host, on the hosts where it was lowest in the time shown."""
        lows = f"min_over_time({self.of(gauge)}[$__range] @ end())"
        return f"min {BY_HOST} (min_over_time({self.of(gauge)}[$__rate_interval])) and bottomk({TOP}, min {BY_HOST} ({lows}))"

    def times_usual(self) -> str:
        """How many times as many short processes there are as in the whole time shown, by host."""
        usual = f"sum {BY_HOST} (rate({self.of(SHORT)}[$__range]))"
        return f"sum {BY_HOST} ({self.rate(SHORT)}) / clamp_min({usual}, {FLOOR})"

    def failed_share(self) -> str:
        """Of the processes that exited, those that failed or were killed, by host."""
        failed = self.rate(ENDED, 'outcome=~"error|signal"')
        return f"sum {BY_HOST} ({failed}) / (sum {BY_HOST} ({self.rate(ENDED)}) > 0)"

    def short_cpu_of_host(self) -> str:
        """Of all CPUs of a host, what its short processes burned."""
        return f"sum {BY_HOST} ({self.rate(SHORT_CPU)}) / max {BY_HOST} ({self.of('shortproc_host_cpus')})"

    def firing(self) -> str:
        """Alerts of our rules; those about no host, too."""
        return 'ALERTS{job=~"$job|", instance=~"$instance|", alertname=~"Shortproc.+", alertstate="firing", severity!="info"}'

    def lifetime(self, of: str, share: float, window: str, *more: str) -> str:
        """A quantile of the lifetimes of all (`process`), or by name (`comm`).

        From native histograms where there are, else from classic ones. By name, these need `metrics.per_comm_histogram`.
        """
        by = ["comm"] if of == "comm" else []
        native = f"rate({self.of(f'shortproc_{of}_lifetime_seconds', *more)}[{window}])"
        classic = f"rate({self.of(f'shortproc_{of}_runtime_seconds_bucket', *more)}[{window}])"
        sums = f"sum by ({', '.join(by)}) ({native})", f"sum by ({', '.join([*by, 'le'])}) ({classic})"
        return " or ".join(f"histogram_quantile({share}, {each})" for each in sums)

    def top_lifetimes(self, share: float, *more: str) -> str:
        """That of the names with the most short processes in the time shown."""
        ranks = f"increase({self.of('shortproc_comm_short_exits_total', *more)}[$__range] @ end())"
        return f"({self.lifetime('comm', share, '$__rate_interval', *more)}) and on (comm) topk({TOP}, sum by (comm) ({ranks}))"

    def lifetimes(self, of: str, *more: str) -> tuple[str, str]:
        """How many lived how long, of `process` or `comm`: native, and classic where there is no native one."""
        native = f"sum(increase({self.of(f'shortproc_{of}_lifetime_seconds', *more)}[$__rate_interval]))"
        classic = f"sum by (le) (increase({self.of(f'shortproc_{of}_runtime_seconds_bucket', *more)}[$__rate_interval]))"
        return native, f"{classic} unless on () {native}"

    def short_cpu_share(self, by: str = "") -> str:
        """Of the CPU that ended processes burned, what the short ones did."""
        short, all_ended = (self.rate(f"shortproc_ended_{which}processes_cpu_seconds_total") for which in ("short_", ""))
        return f"sum {by} ({short}) / (sum {by} ({all_ended}) > 0)"

    def mode(self) -> str:
        """The active mode as its place in `MODES`, from 1; 0 if none is active."""
        series = (self.of("shortproc_detection_mode", f'mode="{spec.mode}"') for spec in MODES)
        numbered = (f"{one} * {place}" for place, one in enumerate(series, 1))
        return f"sum {BY_HOST} ({' or '.join(numbered)})"

    def active(self) -> str:
        """1 for each host, with its mode as a label."""
        return f"max by ({HOST}, mode) ({self.of('shortproc_detection_mode')} == 1)"

    def degraded(self) -> str:
        """1 for each host where a better mode was wanted."""
        return f"max {BY_HOST} ({self.of('shortproc_detection_degraded')}) == 1"

    def seen(self) -> str:
        """Of all clones in the time shown, the share seen. Without clones, that of the last minute; none where nobody knows or looks."""
        observed, kernel = (f"sum {BY_HOST} ({self.grown(f'shortproc_{side}_clones_total')})" for side in ("observed", "kernel"))
        share = f"clamp_max({observed} / ({kernel} > 0), 1) or min {BY_HOST} ({self.of('shortproc_detection_capture_ratio')})"
        return f"(({share}) and on ({HOST}) {self.looking()} == 1)"

    def looking(self) -> str:
        """1 for each host where a mode is active, 0 where none is: its counters stand still as on a quiet host."""
        return f"max {BY_HOST} ({self.of('shortproc_detection_mode')})"

    def verdicts(self) -> list[Verdict]:
        """Every answer, best first."""
        all_seen = f"{self.seen()} >= {WHOLE}"
        return [
            Verdict("complete", f"{all_seen} unless on ({HOST}) {self.degraded()}"),
            Verdict("degraded", f"{all_seen} and on ({HOST}) {self.degraded()}"),
            Verdict("partial", f"{self.seen()} < {WHOLE}"),
            Verdict("unknown", f"{self.looking()} == 1 unless on ({HOST}) {self.seen()}"),
            Verdict("blind", f"{self.looking()} == 0"),
        ]


def owned(vector: str) -> str:
    """With the owner as one label, as `service cron.service`, `pod NAMESPACE/POD/CONTAINER`, or `other`, whose labels are all "other"."""
    joined = f'label_join({vector}, "owner", "/", "kind", "unit", "namespace", "pod", "container")'
    return f'label_replace({joined}, "owner", "$1$2 $3", "owner", "(other)/.*|([^/]+?)/+(.*?)/*")'


def chosen(vector: str) -> str:
    """With the owner as one label, and only of those that are chosen: a selector can't know a label that a query makes."""
    mark = 'label_replace(vector(1), "chosen", "yes", "", "")'
    return f'label_replace({owned(vector)}, "chosen", "yes", "owner", "$owner") and on (chosen) {mark}'


def quantile(share: float, buckets: str) -> str:
    """Of a histogram's rate."""
    return f"histogram_quantile({share}, sum by (le) ({buckets}))"
