"""What a real Prometheus makes of the real exporter."""

from __future__ import annotations

import re
import subprocess
import time
import urllib.parse

import pytest

from bench.prometheus import INSTALLED, THREE, Release
from tests.conftest import NO_THREE
from tests.e2e.fleet.conftest import known_to
from tests.e2e.fleet.scraped import NEW, NEW_ENDS, RANGE_SECONDS, Fleet, fetched
from tests.unit.test_rules import ROOT, queries

DOCS = ROOT / "docs"
SECONDS = 60
QUERIES = [*queries(ROOT / "README.md"), *queries(DOCS / "promql.md")]
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


@pytest.mark.parametrize("server", ["installed, native", "3, native"])
def test_native_histograms_can_be_asked_as_documented(fleets: dict[str, Fleet], server: str) -> None:
    """These queries have no answer elsewhere."""
    native = known_to(server, fleets)
    assert all(native.api("query", query=query)["result"] for query in queries(DOCS / "metrics.md"))


@pytest.mark.parametrize("metric", ["shortproc_comm_exits_total", "shortproc_comm_execs_total"])
def test_a_new_comm_is_seen_from_its_first_event(fleet: Fleet, metric: str) -> None:
    """increase() of a series born with a value would be 0; the hold shows it at 0 first."""
    series = f'{metric}{{comm="{NEW}", instance="{fleet.hosts["complete"]}"}}[{RANGE_SECONDS}s]'
    assert fleet.number(f"sum(max_over_time({series}) - min_over_time({series}))") == NEW_ENDS
    grown = fleet.number(f"sum(increase({series}))")
    assert grown is not None
    assert grown > NEW_ENDS - 1


def test_each_server_stores_the_same(fleets: dict[str, Fleet]) -> None:
    """The same series with the same labels, `le` too: who updates Prometheus or takes native histograms must not lose or rename any.

    Native histograms are further ones. They are asked one after another, and names come and go meanwhile, so it holds sooner or later.
    """
    end = time.monotonic() + SECONDS
    while True:
        try:
            store_the_same(fleets)
        except AssertionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            break


def store_the_same(fleets: dict[str, Fleet]) -> None:
    """Assert it, for what is stored now."""
    stored = {}
    for server, fleet in fleets.items():
        instance = fleet.hosts["complete"]
        wanted = f'{{__name__=~"shortproc_.+|process_.+|python_info", instance="{instance}"}}'
        series = {frozenset(one["metric"].items()) for one in fleet.api("query", query=wanted)["result"]}
        (scraped,) = fleet.api("query", query=f'scrape_samples_post_metric_relabeling{{instance="{instance}"}}')["result"]
        assert int(scraped["value"][1]) == len(series)
        names = {dict(each)["comm"] for each in series if dict(each)["__name__"] == "shortproc_comm_execs_total"}
        lifetimes = {each for each in series if dict(each)["__name__"].endswith("_lifetime_seconds")}
        assert len(lifetimes) == (1 + len(names) if "native" in server else 0)
        stored[server] = series - lifetimes
        described = urllib.parse.quote(f'{{instance="{instance}"}}')
        named = {one["metric"] for one in fleet.api(f"targets/metadata?match_target={described}")}
        assert ("shortproc_execs_total" in named) == ("native" in server), "OpenMetrics has the type of a counter without its name's ending"
    assert len(stored["installed"]) > 200
    assert all(series == stored["installed"] for series in stored.values())


@pytest.mark.parametrize("server", ["installed, native", "3, native"])
def test_native_histograms_count_what_counters_count(fleets: dict[str, Fleet], server: str) -> None:
    """By name and of the whole; a new name from its first process on. So rates of both can be compared."""
    native = known_to(server, fleets)
    of_new, whole = (f'{{{name}instance="{native.hosts["complete"]}"}}' for name in (f'comm="{NEW}", ', ""))
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


@pytest.mark.parametrize("release", [INSTALLED, THREE], ids=["installed", "3"])
def test_promtool_finds_nothing_to_say(fleets: dict[str, Fleet], release: Release) -> None:
    """Names, types and help are as the conventions want them."""
    promtool = release.program("promtool")
    if promtool is None:
        pytest.skip(NO_THREE)
    page = fetched(f"http://{fleets['installed'].hosts['complete']}/metrics")
    assert page
    checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
