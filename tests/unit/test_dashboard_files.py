"""The committed dashboards: made by their generator, about metrics that there are, and whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.test_docs import METRICS, ROW, SERIES_ENDINGS

ROOT = Path(__file__).parents[2]
GRAFANA, RUNBOOK = ROOT / "grafana", ROOT / "docs/runbook.md"
PAGES = {path.stem: json.loads(path.read_text()) for path in sorted(GRAFANA.glob("*.json"))}
PANELS = [panel for page in PAGES.values() for panel in page["panels"] if panel["type"] != "row"]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
OF_OTHERS = {"up", "scrape_duration_seconds", "container_cpu_usage_seconds_total", "ALERTS"}

each_page = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
each_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])


def strings(part: Any, key: str) -> Iterator[str]:
    """The values of a key, wherever it stands."""
    for name, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        if name == key and isinstance(value, str):
            yield value
        yield from strings(value, key)


def test_the_committed_files_are_what_the_generator_makes() -> None:
    """Whoever changes the one must not forget the other."""
    pytest.importorskip("grafana_foundation_sdk", reason="grafana-foundation-sdk is not installed (group dev)")
    from grafana.__main__ import rendered  # noqa: PLC0415

    assert {path.name: path.read_text() for path in GRAFANA.glob("*.json")} == {path.name: text for path, text in rendered().items()}


@each_page
def test_a_page_is_what_the_schema_of_grafana_allows(page: dict[str, Any]) -> None:
    """Read and written again by the SDK's types, nothing is lost: Grafana ignores in silence a field that it does not know."""
    pytest.importorskip("grafana_foundation_sdk", reason="grafana-foundation-sdk is not installed (group dev)")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder  # noqa: PLC0415
    from grafana_foundation_sdk.cog.plugins import register_default_plugins  # noqa: PLC0415
    from grafana_foundation_sdk.models.dashboard import Dashboard  # noqa: PLC0415

    register_default_plugins()
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(page)))
    texts = {f"annotations.list.{number}.{each}" for number in range(3) for each in ("titleFormat", "textFormat", "step")}
    assert lost(page, again) == texts  # see _Marks


def lost(whole: Any, again: Any, path: str = "") -> set[str]:
    """What is in the one and not the same in the other."""
    if isinstance(whole, dict) and isinstance(again, dict):
        return {each for key in whole for each in lost(whole[key], again.get(key), f"{path}.{key}".lstrip("."))}
    if isinstance(whole, list) and isinstance(again, list):
        return {each for number, pair in enumerate(zip_longest(whole, again)) for each in lost(*pair, f"{path}.{number}")}
    return set() if whole == again else {path}


@each_panel
def test_a_panel_explains_itself(panel: dict[str, Any]) -> None:
    """A title, one sentence and a unit; a number without them says nothing to who is called at night."""
    assert panel["title"]
    assert re.fullmatch(r"[A-Z][^.]+\.", panel["description"])
    assert panel["fieldConfig"]["defaults"]["unit"]


@each_panel
def test_a_panel_asks_for_the_hosts_chosen(panel: dict[str, Any]) -> None:
    """By the variables for source, job and host, in each selector; and no window is longer or shorter than what is shown."""
    assert panel["datasource"] == SOURCE
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"] == SOURCE
        for selector in re.findall(r"(?<!container_cpu_usage_seconds_total)(?<!ALERTS)\{.*?\}", target["expr"]):
            assert re.match(r'\{job=~"\$job", instance=~?"\$instance"[,}]', selector)
        assert not re.search(r"\[\d", target["expr"])


@each_page
def test_every_metric_is_in_the_catalogue(page: dict[str, Any]) -> None:
    """And is one of the exporter itself: the pages need no recording rule."""
    known = {name for name, *_ in ROW.findall(METRICS.read_text())} | OF_OTHERS
    asked = [*strings(page, "expr"), *strings(page["templating"], "query")]
    named = {name for query in asked for name in re.findall(r"([\w:]+)\{", query)}
    assert named
    assert not {name for name in named if name not in known and re.sub(f"({'|'.join(SERIES_ENDINGS)})$", "", name) not in known}


@each_page
def test_there_is_a_variable_for_all_that_is_chosen(page: dict[str, Any]) -> None:
    """Also for what a link carries over: the same names on both pages."""
    variables = {variable["name"]: variable for variable in page["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance", "comm", "owner", "runbook"]
    assert all(variable["datasource"] == SOURCE for variable in variables.values() if variable["type"] == "query")
    named = {name for name in re.findall(r"\$\{?([a-zA-Z_]\w*)", json.dumps(page)) if not name.startswith("__")}
    assert named <= set(variables)


@each_page
def test_links_keep_what_is_chosen(page: dict[str, Any]) -> None:
    """Variables and time range, to the other page and from a host's row or line to its page."""
    assert [(link["includeVars"], link["keepTime"]) for link in page["links"] if link["type"] == "dashboards"] == [(True, True)]
    for url in strings(page, "url"):
        if url.startswith("/d/"):
            assert url.startswith("/d/shortproc-host?var-instance=")
            assert {"datasource", "job", "comm", "owner"} == set(re.findall(r"\$\{(\w+):queryparam\}", url))
            assert url.endswith("&${__url_time_range}")


@each_page
def test_links_to_the_runbook_lead_to_a_heading(page: dict[str, Any]) -> None:
    """In the middle of a night a link to the top of a long page is hardly one."""
    anchors = {url.partition("#")[2] for url in strings(page, "url") if url.startswith("${runbook}#")}
    assert anchors
    if not RUNBOOK.exists():
        pytest.skip("docs/runbook.md is not there")
    titles = re.findall(r"^#+ (.+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert anchors <= {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@each_page
def test_no_panel_covers_another(page: dict[str, Any]) -> None:
    """The grid is 24 wide; an id twice makes Grafana show one panel for the other."""
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in page["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    ids = [panel["id"] for panel in page["panels"]]
    assert len(ids) == len(set(ids))


@each_page
def test_what_explains_a_step_is_marked(page: dict[str, Any]) -> None:
    """A step in a graph may be the mode's or a restart's, not the host's."""
    marks = {each["name"]: each for each in page["annotations"]["list"]}
    assert all(each["datasource"] == SOURCE for each in marks.values())
    asked = {"Mode switches": "shortproc_detection_mode_switches_total", "Restarts": "process_start_time_seconds", "Alerts": "ALERTS"}
    assert marks.keys() == asked.keys()
    assert all(name in marks[mark]["expr"] for mark, name in asked.items())


@each_page
def test_the_first_row_says_what_is_wrong_and_the_second_how_far_to_trust_it(page: dict[str, Any]) -> None:
    """Whoever is called at night looks there."""
    rows: dict[int, list[str]] = {}
    for panel in page["panels"]:
        rows.setdefault(panel["gridPos"]["y"], []).append(panel["title"])
    first, second, *_ = (rows[y] for y in sorted(rows))
    assert first == ["Burst", "Failures", "Firing alerts", "CPU of short processes"]
    assert "complete" in second[0]


@each_panel
def test_rates_have_one_unit(panel: dict[str, Any]) -> None:
    """Beside each other, short processes per second must not look like a number of them."""
    rates = [
        panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]
        if re.match(r"sum( by \(\w+\))? \(?rate\(shortproc_\w+(exits|processes)_total", target["expr"])
    ]
    assert set(rates) <= {"count:/s"}


def test_the_provisioning_files_are_whole() -> None:
    """Grafana ignores in silence what it does not understand."""
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/shortproc.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] in (GRAFANA / "README.md").read_text()
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
