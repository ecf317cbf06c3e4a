"""Every query of the dashboards, asked of a real Prometheus that scrapes six hosts."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet.conftest import known_to
from tests.e2e.fleet.scraped import EACH, JOB, ROUNDS, TINY, Asked, Fleet, filled

PAGES = {path.stem: json.loads(path.read_text()) for path in sorted((Path(__file__).parents[3] / "grafana").glob("*.json"))}

OF_CADVISOR = "container_cpu_usage_seconds_total"
"""No container runs here; tests/unit/test_promql.py asks this query of made-up series."""


def asked() -> Iterator[Asked]:
    """Every query of every panel and annotation that needs only our metrics. Of a heat map, one for each kind of histograms."""
    for name, page in PAGES.items():
        for panel in page["panels"]:
            targets = panel.get("targets", [])
            if panel["type"] == "heatmap":
                yield Asked(name, panel["title"], " or ".join(f"({target['expr']})" for target in targets), instant=False)
                continue
            for target in targets:
                if OF_CADVISOR not in target["expr"]:
                    yield Asked(name, f"{panel['title']}: {target['refId']}", target["expr"], target.get("instant", False))
        for annotation in page["annotations"]["list"]:
            yield Asked(name, annotation["name"], annotation["expr"], instant=False)


@pytest.mark.parametrize("asked", list(asked()), ids=lambda asked: f"{asked.page}: {asked.of}")
def test_each_query_returns_data(fleet: Fleet, asked: Asked) -> None:
    """Of one of the hosts at least: a panel that shows nothing anywhere is of no use, and an error is worse."""
    answers = [fleet.ask(asked, instance) for instance in fleet.hosts.values()]
    assert any(answers)


@pytest.mark.parametrize("page", PAGES)
def test_each_variable_lists_something(fleet: Fleet, page: str) -> None:
    """Those that are asked of Prometheus: without values the page stays empty."""
    found = {}
    for variable in PAGES[page]["templating"]["list"]:
        if variable["type"] == "query":
            if listed := re.fullmatch(r"query_result\((.+)\)", variable["query"]["query"]):
                series = fleet.api("query", query=filled(listed[1], fleet.hosts["complete"]))["result"]
                found[variable["name"]] = {one["metric"]["owner"] for one in series}
                continue
            matched = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert matched is not None
            selector = urllib.parse.quote(filled(matched[1], fleet.hosts["complete"]))
            found[variable["name"]] = set(fleet.api(f"label/{matched[2]}/values?match[]={selector}"))
    assert found.keys() == {"job", "instance", "comm", "owner"}
    assert all(re.fullmatch(r"[a-z]+ (?!other).*", owner) for owner in found["owner"])
    assert found["job"] == {JOB}
    assert found["instance"] <= set(fleet.hosts.values())
    assert fleet.hosts["complete"] in found["instance"]
    assert TINY in found["comm"]


def test_each_host_is_counted_under_its_verdict(fleet: Fleet) -> None:
    """A host whose figures are too low must not pass for one that sees everything."""
    counted = {}
    for target, asked in panel("shortproc-fleet", "Hosts by completeness"):
        (answer,) = fleet.ask(asked, ".+")
        counted[target["legendFormat"]] = answer["values"][0][1]
    assert counted == dict.fromkeys(fleet.hosts, "1")


def test_the_banner_says_one_thing_of_each_host(fleet: Fleet) -> None:
    """Two answers would leave the reader with the doubt that the banner is there to take away. None is "no data", in words."""
    said = {}
    for name, instance in fleet.hosts.items():
        answers = [(target, fleet.ask(asked, instance)) for target, asked in panel("shortproc-host", "Is this page complete?")]
        said[name] = [target["legendFormat"].partition(":")[0] for target, series in answers for _ in series]
    assert said == {
        "complete": ["Complete"],
        "degraded": ["Complete, but {{mode}} is not the preferred mode; seen"],
        "partial": ["Partial"],
        "unknown": ["Unknown"],
        "blind": [],
        "not scraped": [],
    }


def test_names_are_counted_right(fleet: Fleet) -> None:
    """A query may return data and be wrong all the same: the table is compared with what was run."""
    (_, asked), *_ = panel("shortproc-host", "Command names")
    counts = {one["metric"].get("comm"): float(one["values"][0][1]) for one in fleet.ask(asked, fleet.hosts["complete"])}
    assert counts[TINY] == pytest.approx(2 * ROUNDS * EACH, rel=0.3)  # increase() guesses beyond the first and last scrape


def test_quantiles_of_names_are_the_same_by_both_histograms(fleets: dict[str, Fleet]) -> None:
    """The panels take what a server has; the bounds of classic ones are further apart."""
    asked = next(asked for target, asked in panel("shortproc-host", "Command names") if "0.5" in target["expr"])
    medians = {}
    for server in ("installed", "installed, native", "3", "3, native"):
        fleet = known_to(server, fleets)
        found = {one["metric"]["comm"]: float(one["values"][0][1]) for one in fleet.ask(asked, fleet.hosts["complete"])}
        assert len(found) == len(fleet.ask(asked, fleet.hosts["complete"])), "one value of each name"
        medians[server] = found[TINY]
    assert medians["installed, native"] == pytest.approx(medians["3, native"], rel=0.1)
    assert medians["installed"] == pytest.approx(medians["3"], rel=0.1)
    assert medians["3, native"] / 2.5 < medians["3"] < medians["3, native"] * 2.5


def test_alerts_fire_by_the_rules_on_each_server(fleet: Fleet) -> None:
    """Those that the hosts of this test raise by being what they are; and no rule fails."""
    rules = [rule for group in fleet.api("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 30
    assert {rule["health"] for rule in rules} == {"ok"}
    (_, asked), *_ = panel("shortproc-fleet", "Firing alerts")
    (answer,) = fleet.ask(asked, ".+")
    assert float(answer["values"][0][1]) >= 2


def test_a_switch_is_marked_once(fleet: Fleet) -> None:
    """At one step: a mark at each step of a rate's window would hide when it was."""
    (asked,) = (each for each in asked_of("shortproc-host") if each.of == "Mode switches")
    (series,) = fleet.ask(asked, fleet.hosts["partial"])
    assert (series["metric"]["to_mode"], series["metric"]["reason"]) == ("scan", "config")
    assert [value for _, value in series["values"]] == ["1"]


def asked_of(page: str) -> list[Asked]:
    return [each for each in asked() if each.page == page]


def panel(page: str, title: str) -> Iterator[tuple[dict[str, Any], Asked]]:
    """Its queries, with what the page says of each."""
    (found,) = (panel for panel in PAGES[page]["panels"] if panel["title"] == title and panel["type"] != "row")
    for target in found["targets"]:
        yield target, Asked(page, title, target["expr"], target.get("instant", False))
