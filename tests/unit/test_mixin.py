"""The mixin, evaluated by jsonnet: it has the rules and dashboards of the repository, and its settings change them."""

from __future__ import annotations

import json
import re
from typing import Any

import _jsonnet
import pytest
import yaml

from tests.unit.test_rules import PROMETHEUS, ROOT, RULES

FOLDER = ROOT / "deploy/mixin"
Group = dict[str, Any]


def mixin(config: str = "{}") -> dict[str, Any]:
    """What a fleet gets, with every field shown."""
    hidden = ("prometheusAlerts", "prometheusRules", "grafanaDashboards")
    shown = ", ".join(f"{name}: m.{name}" for name in hidden)
    found: dict[str, Any] = json.loads(
        _jsonnet.evaluate_snippet("test", f"local m = (import '{FOLDER}/mixin.libsonnet') {{ _config+:: {config} }}; {{ {shown} }}")
    )
    return found


def rules(groups: list[Group]) -> list[tuple[str, str, Group]]:
    """Each rule with the name and the interval of its group, in an order of their own."""
    found = [(group["name"], group["interval"], rule) for group in groups for rule in group["rules"]]
    return sorted(found, key=lambda each: json.dumps(each, sort_keys=True))


@pytest.fixture(scope="module")
def unchanged() -> dict[str, Any]:
    return mixin()


def test_it_has_the_rules_of_the_repository(unchanged: dict[str, Any]) -> None:
    """One source: nothing is typed twice, and nothing is left out."""
    alerts, recorded = unchanged["prometheusAlerts"]["groups"], unchanged["prometheusRules"]["groups"]
    files = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    assert rules(alerts + recorded) == rules(files)
    assert {"alert" in rule for _, _, rule in rules(alerts)} == {True}
    assert {"record" in rule for _, _, rule in rules(recorded)} == {True}


def test_it_has_the_dashboards_of_the_repository(unchanged: dict[str, Any]) -> None:
    """Grafana finds them by their file names."""
    assert unchanged["grafanaDashboards"] == {path.name: json.loads(path.read_text()) for path in (ROOT / "grafana").glob("*.json")}


def test_settings_change_it() -> None:
    """As those of the Helm chart do."""
    found = mixin("""{
        limits+: { burst_limit_per_second: 3000, capture_ratio: { netlink: 0.9 } },
        disabled+: ['ShortprocExporterAbsent'], runbookUrl: 'https://git.example/', owner: false,
    }""")
    recorded = {
        (rule["record"], *rule.get("labels", {}).values()): rule["expr"] for _, _, rule in rules(found["prometheusRules"]["groups"])
    }
    assert recorded["shortproc:setting:burst_limit_per_second",] == "vector(3000)"
    assert recorded["shortproc:setting:capture_ratio", "netlink"] == "vector(0.9)"
    assert recorded["shortproc:setting:capture_ratio", "ebpf_core"] == "vector(0.99)"
    alerts = {rule["alert"]: rule for _, _, rule in rules(found["prometheusAlerts"]["groups"])}
    assert "ShortprocBurst" in alerts
    assert not {"ShortprocExporterAbsent", "ShortprocOwnerBurst"} & alerts.keys()
    assert all(alert["annotations"]["runbook_url"].startswith("https://git.example/docs/runbook.md#") for alert in alerts.values())


@pytest.mark.parametrize("config", ["{ limits+: { burst: 1 } }", "{ disabled+: ['burst'] }"])
def test_a_setting_of_nothing_is_an_error(config: str) -> None:
    """A misspelt limit would change nothing, and nobody would know."""
    with pytest.raises(RuntimeError, match="neither alerts nor limits of the rules: burst"):
        mixin(config)


def test_every_file_of_rules_is_in_it() -> None:
    """A new file has to be named here, too."""
    named = re.findall(r"importstr '\.\./prometheus/rules/(\w+)\.yml'", (FOLDER / "mixin.libsonnet").read_text())
    assert sorted(named) == sorted(path.stem for path in (PROMETHEUS / "rules").glob("*.yml"))
