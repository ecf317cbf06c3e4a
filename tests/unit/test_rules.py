"""The rules of deploy/prometheus, with promtool; and that alerts, runbook, documents and catalogue agree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bench.prometheus import INSTALLED, THREE, Release
from exporter.config.options import Config, Metrics
from exporter.metrics.exposition import Exposition
from exporter.metrics.families import NativeHistograms
from exporter.model import Lost, Mode
from exporter.model.dimensions import COMM, DIMENSIONS, OWNER
from exporter.supervision.reload import LastReload
from tests.conftest import NO_THREE
from tests.unit.snapshots import worst

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
RUNBOOK = ROOT / "docs/runbook.md"
WITH_QUERIES = [ROOT / "docs/promql.md", ROOT / "README.md"]
OF_KUBERNETES = {"kube_pod_owner", "kube_pod_labels", "kube_pod_container_status_restarts_total", "container_cpu_usage_seconds_total"}
FOREIGN = {"up", "node_uname_info", "process_start_time_seconds"} | OF_KUBERNETES
"""Metrics of others that rules and documents may rest on."""
IGNORED_LOSSES = {Lost.UNSEEN, Lost.VANISHED, Lost.UNREADABLE, Lost.NAME_RACE, Lost.SWITCH_UNSURE, Lost.EXES_FULL, Lost.ORIGINS_FULL}
"""No reason for an alert: what scans do, what netlink does without root, the bookkeeping of a switch, a path."""
RELEASES = {INSTALLED: "installed", THREE: "3"}
NEWEST = THREE if THREE.program("promtool") else INSTALLED
IN_ONE = {"burst": INSTALLED, "burst_days": NEWEST, "burst_week": NEWEST, "burst_owner_days": NEWEST, "native": THREE}
"""Scenarios of days, which take the most time: each release has some of the same rules. And those that the installed one can't read."""
SCENARIOS = [(path, release) for path in TESTS for release in ([IN_ONE[path.stem]] if path.stem in IN_ONE else RELEASES)]

each_release = pytest.mark.parametrize("release", RELEASES, ids=RELEASES.values())

Rule = dict[str, Any]


def loaded(path: Path) -> dict[str, list[dict[str, Any]]]:
    """A file of rules or of scenarios; ten times as fast as without C."""
    content: dict[str, list[dict[str, Any]]] = yaml.load(path.read_text(), yaml.CSafeLoader)
    return content


def rules(path: Path) -> list[Rule]:
    return [rule for group in loaded(path)["groups"] for rule in group["rules"]]


def named(rule: Rule) -> str:
    """An alert's name or that of the series that a rule records."""
    return str(rule.get("alert") or rule["record"])


EVERY_RULE = [rule for path in RULES for rule in rules(path)]
ALERTS = {rule["alert"]: rule for rule in EVERY_RULE if "alert" in rule}
RECORDED = {rule["record"] for rule in EVERY_RULE if "record" in rule}
SETTINGS = {rule["record"] for rule in rules(PROMETHEUS / "rules/settings.yml")}


def promtool(*arguments: object, cwd: Path = PROMETHEUS, release: Release = INSTALLED) -> str:
    """Run it; its output is the message where it fails. More garbage than Go likes is a third faster."""
    program = release.program("promtool")
    if program is None:
        pytest.skip(NO_THREE if release is THREE else "promtool is not installed (Debian's package prometheus)")
    words = [str(word) for word in arguments]
    garbage = {**os.environ, "GOGC": "400"}
    ran = subprocess.run([program, *words], cwd=cwd, env=garbage, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


@pytest.mark.parametrize(("severity", "receiver"), [("critical", "pager"), ("warning", "tickets"), ("info", "nobody")])
def test_alertmanager_takes_its_example_and_sends_each_severity_to_its_receiver(severity: str, receiver: str) -> None:
    """News must wake nobody, and what is critical somebody."""
    if shutil.which("amtool") is None:
        pytest.skip("amtool is not installed (Debian's package prometheus-alertmanager)")
    config = ROOT / "deploy/alertmanager/alertmanager.yml"
    command = ["amtool", "config", "routes", "test", f"--config.file={config}", f"--verify.receivers={receiver}", f"severity={severity}"]
    routed = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert routed.returncode == 0, routed.stdout
    inhibiting = set(re.findall(r"Shortproc\w+", config.read_text()))
    assert inhibiting <= set(ALERTS)


def test_the_way_to_a_first_graph_leads_somewhere() -> None:
    """Links and files that the page for newcomers names."""
    page = (PROMETHEUS / "README.md").read_text()
    named = re.findall(r"\]\(([^)#:]+)\)|((?:deploy|rules)/[\w/]+\.yml)", page)
    paths = [PROMETHEUS / link if link else (ROOT if file.startswith("deploy") else PROMETHEUS) / file for link, file in named]
    assert paths
    assert [path for path in paths if not path.exists()] == []


@pytest.fixture(scope="module")
def catalogue() -> set[str]:
    """The names that a scrape can show, as PromQL sees them."""
    exposition = Exposition(Config(metrics=Metrics(per_comm_histogram=True)), worst, LastReload())
    families = text_string_to_metric_families(exposition.render().decode())
    native = {each.family.name for each in exposition.families() if isinstance(each, NativeHistograms)}
    return {sample.name for family in families for sample in family.samples} | native


def used(expr: str) -> set[str]:
    """Names of metrics in an expression: ours by their prefix, and the others that are known."""
    names = r"\bshortproc[_:][\w:]+|\b(?:up|(?:node|process|kube|container)_\w+|python_info)\b"
    return set(re.findall(names, re.sub(r'"[^"]*"', "", expr)))


def queries(path: Path) -> list[str]:
    """The blocks of PromQL of a document; an empty line parts two queries of one block."""
    return [query for block in re.findall(r"```promql\n(.*?)```", path.read_text(), re.DOTALL) for query in block.strip().split("\n\n")]


@each_release
def test_promtool_takes_the_rules_and_the_scrape_configuration(release: Release) -> None:
    """An error in one file keeps Prometheus from starting."""
    assert "FAILED" not in promtool("check", "rules", *RULES, release=release)
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml", release=release)


def test_promtool_takes_tls_and_a_password_once_they_are_wanted(tmp_path: Path) -> None:
    """Nobody tries what stands behind a comment sign, until somebody needs it."""
    text = (PROMETHEUS / "prometheus.yml").read_text().replace("#: ", "")
    wanted = yaml.safe_load(text)["scrape_configs"][0]
    assert (wanted["scheme"], set(wanted["basic_auth"])) == ("https", {"username", "password_file"})
    (tmp_path / "prometheus.yml").write_text(text)
    promtool("check", "config", "--syntax-only", tmp_path / "prometheus.yml")


def resting_on(names: set[str]) -> set[str]:
    """These rules, and all that they rest on."""
    below = {name for rule in EVERY_RULE if named(rule) in names for name in used(str(rule["expr"]))} & RECORDED
    return names if below <= names else resting_on(names | below)


def reduced(path: Path, folder: Path) -> Path:
    """A file of scenarios, with only the rules that it looks at: those of a day and more evaluate them thousands of times."""
    text = path.read_text()
    wanted = resting_on(set(re.findall(r"\balertname: (\w+)", text)) | used(text) & RECORDED)
    groups = [
        {**group, "name": f"{each.stem}-{group['name']}", "rules": [rule for rule in group["rules"] if named(rule) in wanted]}
        for each in RULES
        for group in loaded(each)["groups"]
    ]
    (folder / "rules.yml").write_text(yaml.dump({"groups": groups}, Dumper=yaml.CSafeDumper))
    (folder / path.name).write_text(re.sub(r"rule_files: .*", "rule_files: [rules.yml]", text))
    return folder / path.name


@pytest.mark.parametrize(("path", "release"), SCENARIOS, ids=lambda value: value.stem if isinstance(value, Path) else RELEASES[value])
def test_scenarios(path: Path, release: Release, tmp_path: Path) -> None:
    """Each alert fires when it must and is silent when it must be; the files say why of each case."""
    is_long = path.stem.startswith("burst")
    promtool("test", "rules", reduced(path, tmp_path) if is_long else path, release=release)


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    """What the scenarios expect of alerts."""
    return [case for path in TESTS for test in loaded(path)["tests"] for case in test.get("alert_rule_test", [])]


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_scenario_in_which_it_fires_and_one_in_which_it_is_silent(cases: list[dict[str, Any]], name: str) -> None:
    """One that is only seen firing may fire always, and one that is only seen silent never."""
    assert {bool(case["exp_alerts"]) for case in cases if case["alertname"] == name} == {True, False}


def test_every_recording_rule_has_a_scenario() -> None:
    """Also those that dashboards and documents use: what nothing tests is a guess."""
    tested = "".join(path.read_text() for path in TESTS)
    assert {name for name in RECORDED - SETTINGS if not re.search(rf"expr: (round\()?{name}\b", tested)} == set()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_to_do(name: str) -> None:
    """Whoever is woken by it has a severity, two sentences and a page."""
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    document, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^## (.+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert ROOT / document == RUNBOOK
    assert anchor == name.lower()
    assert name in headings
    row = next(line for line in RUNBOOK.read_text().splitlines() if line.startswith(f"| [{name}]"))
    assert f"| {alert['labels']['severity']} |" in row


def test_the_runbook_knows_no_other_alert() -> None:
    """A page of an alert that is gone misleads."""
    assert set(re.findall(r"^## (Shortproc\w+)$", RUNBOOK.read_text(), re.MULTILINE)) == set(ALERTS)


def test_every_metric_of_a_rule_exists(catalogue: set[str]) -> None:
    """A name that is spelt wrong makes an alert that never fires, and no error."""
    known = catalogue | RECORDED | FOREIGN
    assert {name for rule in EVERY_RULE for name in used(str(rule["expr"]))} - known == set()


@pytest.mark.parametrize("path", [*WITH_QUERIES, RUNBOOK], ids=lambda path: path.stem)
def test_every_recorded_name_of_a_document_exists(path: Path) -> None:
    """So does a limit that the runbook tells to change, or a query that rests on a rule."""
    assert set(re.findall(r"\bshortproc:[\w:]+\w", path.read_text())) - RECORDED == set()


@pytest.mark.parametrize("path", WITH_QUERIES, ids=lambda path: path.stem)
def test_documented_queries_can_be_parsed(path: Path, tmp_path: Path, catalogue: set[str]) -> None:
    """They are there to be copied."""
    found = queries(path)
    assert found
    assert {name for query in found for name in used(query)} - catalogue - RECORDED - FOREIGN == set()
    each = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(found)]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": each}]}))
    promtool("check", "rules", tmp_path / "queries.yml")


def test_every_setting_is_explained_and_used() -> None:
    """A limit that changes nothing is worse than none."""
    elsewhere = {name for rule in EVERY_RULE for name in used(str(rule["expr"]))}
    assert elsewhere >= SETTINGS
    assert {name for name in SETTINGS if name not in RUNBOOK.read_text()} == set()
    assert f"< {len(SETTINGS)}" in ALERTS["ShortprocSettingsWrong"]["expr"]
    limited = {rule["labels"]["mode"] for rule in EVERY_RULE if rule.get("record") == "shortproc:setting:capture_ratio"}
    assert limited == set(Mode)


def test_every_cause_of_a_loss_alerts_or_is_left_out_on_purpose() -> None:
    """A new cause must be put into one of the two."""
    expr = ALERTS["ShortprocEventsLost"]["expr"]
    match = re.search(r'reason=~"([^"]+)"', expr)
    assert match is not None
    alerting = set(match[1].split("|"))
    assert alerting & IGNORED_LOSSES == set()
    assert alerting | IGNORED_LOSSES == set(Lost)
    section = RUNBOOK.read_text().partition("## ShortprocEventsLost")[2].partition("\n## ")[0]
    assert {reason for reason in Lost if f"`{reason}`" not in section} == set()


@pytest.mark.parametrize("file", ["comm", "owner"])
def test_only_one_file_needs_a_dimension(file: str) -> None:
    """Whoever drops the series by command name or owner leaves out one file and loses nothing else."""
    names = {path.stem: {name for rule in rules(path) for name in used(str(rule["expr"]))} for path in RULES}
    assert {stem for stem in names if any(name.startswith(f"shortproc_{file}_") for name in names[stem])} == {file}


def test_no_other_dimension_is_needed() -> None:
    """Each could be switched off."""
    prefixes = tuple(f"shortproc_{each.name}_" for each in DIMENSIONS if each not in (COMM, OWNER))
    assert not [name for rule in EVERY_RULE for name in used(str(rule["expr"])) if name.startswith(prefixes)]


def relabellings() -> list[list[dict[str, Any]]]:
    """What docs/scaling.md tells to put under `metric_relabel_configs`."""
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/scaling.md").read_text(), re.DOTALL)]
    return [block["metric_relabel_configs"] for block in blocks if "metric_relabel_configs" in block]


def test_prometheus_takes_what_the_page_on_scaling_says(tmp_path: Path) -> None:
    """An error in a copied block keeps Prometheus from starting."""
    jobs = [{"job_name": str(number), "metric_relabel_configs": each} for number, each in enumerate(relabellings())]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": jobs}))
    assert len(jobs) == 3
    promtool("check", "config", "--syntax-only", tmp_path / "prometheus.yml")


def test_whole_families_alone_are_enough_for_the_alerts(catalogue: set[str]) -> None:
    """Whoever keeps only those loses no alerts but those on names and owners."""
    kept = next(each["regex"] for block in relabellings() for each in block if each["action"] == "keep")
    whole = [rule for path in RULES if path.stem not in ("comm", "owner") for rule in rules(path)]
    needed = {name for rule in whole for name in used(str(rule["expr"]))} & catalogue
    assert {name for name in needed if not re.fullmatch(kept, name)} == {"shortproc_process_runtime_seconds_bucket"}


def test_no_job_is_assumed() -> None:
    """Users name their jobs as they like; only what is absent must be called by one."""
    naming = {rule.get("alert") for rule in EVERY_RULE if re.search(r"\bjob\s*[=!]", str(rule["expr"]))}
    assert naming == {"ShortprocExporterDown", "ShortprocExporterAbsent"}
