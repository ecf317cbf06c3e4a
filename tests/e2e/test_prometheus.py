"""What a real Prometheus makes of the real exporter."""

from __future__ import annotations

import re
import subprocess
import urllib.parse
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.fleet import NEW, NEW_ENDS, RANGE_SECONDS, Fleet, fetched

DOCS = Path(__file__).parents[2] / "docs"
QUERIES = [
    query for block in re.findall(r"```promql\n(.*?)```", (DOCS / "promql.md").read_text(), re.DOTALL) for query in block.split("\n\n")
]
RUNBOOK = [line.strip() for line in (DOCS / "runbook.md").read_text().splitlines() if line.startswith("    ")]
NEEDS_MORE = re.compile(
    r'shortproc:|setting|offset|node_|kube_|container_|kind="pod"|cron\.service|"(UNIT|NAMESPACE)"|fork_failures|exec_failures|xmrig|comm="other"'
)
"""The recording rules, a past, other exporters, pods and units, programs that not every kernel attaches, a name beyond the cap: what this
Prometheus or host does not have.
"""


@pytest.mark.parametrize("query", [*QUERIES, *RUNBOOK])
def test_a_documented_query_can_be_asked(fleet: Fleet, query: str) -> None:
    """Two sides that do not match are found out by real series only; and whoever copies a query wants an answer."""
    asked = [query.replace("HOST", instance).replace("NAME", NEW) for instance in fleet.hosts.values()]
    answers = [fleet.api("query", query=each)["result"] for each in asked]
    assert any(answers) or NEEDS_MORE.search(query)


@pytest.mark.parametrize("metric", ["shortproc_comm_exits_total", "shortproc_comm_execs_total"])
def test_a_new_comm_is_seen_from_its_first_event(fleet: Fleet, metric: str) -> None:
    """increase() of a series born with a value would be 0; the hold shows it at 0 first."""
    series = f'{metric}{{comm="{NEW}", instance="{fleet.hosts["complete"]}"}}[{RANGE_SECONDS}s]'
    assert fleet.number(f"sum(max_over_time({series}) - min_over_time({series}))") == NEW_ENDS
    grown = fleet.number(f"sum(increase({series}))")
    assert grown is not None
    assert grown > NEW_ENDS - 1


def test_protobuf_stores_what_text_stores(fleet: Fleet) -> None:
    """The same series with the same labels, `le` too: a server that begins to take native histograms must not lose or rename any.

    Native histograms are further ones.
    """
    instance = fleet.hosts["complete"]
    wanted = f'{{__name__=~"shortproc_.+|process_.+|python_info", instance="{instance}"}}'
    native = replace(fleet, url=fleet.native_url)
    stored = [{frozenset(one["metric"].items()) for one in each.api("query", query=wanted)["result"]} for each in (fleet, native)]
    assert len(stored[0]) > 200
    lifetimes = {each for each in stored[1] if dict(each)["__name__"].endswith("_lifetime_seconds")}
    assert stored[0] == stored[1] - lifetimes
    names = {dict(each)["comm"] for each in stored[1] if dict(each)["__name__"] == "shortproc_comm_execs_total"}
    assert len(lifetimes) == 1 + len(names)
    (scraped,) = native.api("query", query=f'scrape_samples_post_metric_relabeling{{instance="{instance}"}}')["result"]
    assert int(scraped["value"][1]) == len(stored[1])
    described = urllib.parse.quote(f'{{instance="{instance}"}}')
    metadata = [each.api(f"targets/metadata?match_target={described}") for each in (fleet, native)]
    with_ending = ["shortproc_execs_total" in {one["metric"] for one in each} for each in metadata]
    assert with_ending == [False, True], "the type of a counter has its name without the ending in OpenMetrics, with it in protobuf"


def test_native_histograms_count_what_counters_count(fleet: Fleet) -> None:
    """By name and of the whole; a new name from its first process on. So rates of both can be compared."""
    native, instance = replace(fleet, url=fleet.native_url), fleet.hosts["complete"]
    of_new, whole = f'{{comm="{NEW}", instance="{instance}"}}', f'{{instance="{instance}"}}'
    assert native.number(f"histogram_count(shortproc_comm_lifetime_seconds{of_new})") == NEW_ENDS
    grown = native.number(f"histogram_count(increase(shortproc_comm_lifetime_seconds{of_new}[{RANGE_SECONDS}s]))")
    assert grown is not None
    assert grown > NEW_ENDS - 1
    for of in ("count", "sum"):
        both = f"histogram_{of}(shortproc_process_lifetime_seconds{whole}) - shortproc_process_runtime_seconds_{of}{whole}"
        assert native.number(both) == 0
    quantiles = [native.number(f"histogram_quantile({q}, shortproc_comm_lifetime_seconds{of_new})") for q in (0, 0.5, 1)]
    assert quantiles == sorted(quantiles)  # type: ignore[type-var]
    assert quantiles[0]


def test_promtool_finds_nothing_to_say(fleet: Fleet) -> None:
    """Names, types and help are as the conventions want them."""
    page = fetched(f"http://{fleet.hosts['complete']}/metrics")
    assert page
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
