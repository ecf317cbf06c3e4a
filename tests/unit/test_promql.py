"""The queries of docs/promql.md about who is responsible, and the one of the dashboards, asked by promtool of made-up series."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.prometheus import INSTALLED, Release
from tests.unit.test_rules import ROOT, each_release, promtool

PROMQL = ROOT / "docs/promql.md"
PAGE = ROOT / "grafana/shortproc-host.json"
CART = 'namespace="shop", pod="cart-5f7d-x2x4z"'
MAIL = 'namespace="shop", pod="mail-1"'
CART_WEB, MAIL_SEND = f'{CART}, container="web"', f'{MAIL}, container="send"'
CRON, OTHER = 'kind="service", unit="cron.service"', 'kind="other", unit="other", namespace="other", pod="other", container="other"'
N1, N2 = 'instance="n1", job="shortproc"', 'instance="n2", job="shortproc"'
KSM = 'job="kube-state-metrics", uid="1"'
CADVISOR = 'job="kubelet", metrics_path="/metrics/cadvisor", image="web"'

A_MINUTE = {
    f'shortproc_owner_short_exits_total{{kind="pod", {CART_WEB}, {N1}}}': 60,
    f'shortproc_owner_short_exits_total{{kind="pod", {MAIL_SEND}, {N2}}}': 120,
    f"shortproc_owner_short_exits_total{{{CRON}, {N1}}}": 180,
    f"shortproc_owner_short_exits_total{{{OTHER}, {N1}}}": 240,
    f'shortproc_owner_failed_exits_total{{kind="pod", {CART_WEB}, {N1}}}': 60,
    f'shortproc_owner_failed_exits_total{{kind="pod", {MAIL_SEND}, {N2}}}': 30,
    f'shortproc_owner_short_cpu_seconds_total{{kind="pod", {CART_WEB}, {N1}}}': 6,
    f'shortproc_owner_comm_short_exits_total{{{CRON}, comm="true", {N1}}}': 180,
    f'shortproc_spawner_short_exits_total{{spawner="cron", {N1}}}': 60,
    f'shortproc_user_short_exits_total{{user="www-data", {N1}}}': 60,
    f'container_cpu_usage_seconds_total{{{CART_WEB}, {CADVISOR}, instance="10.0.0.1:10250"}}': 12,
    f'container_cpu_usage_seconds_total{{{CART}, {CADVISOR}, instance="10.0.0.1:10250"}}': 15,
    f'kube_pod_container_status_restarts_total{{{CART_WEB}, {KSM}, instance="a"}}': 1,
    f'kube_pod_container_status_restarts_total{{{MAIL_SEND}, {KSM}, instance="a"}}': 0,
}
"""How much each counter grows. The whole pod is one more series of cAdvisor."""
CONSTANT = {
    f'kube_pod_owner{{{CART}, owner_kind="ReplicaSet", owner_name="cart-5f7d", owner_is_controller="true", {KSM}, instance="a"}}': 1,
    f'kube_pod_owner{{{CART}, owner_kind="ReplicaSet", owner_name="cart-5f7d", owner_is_controller="true", {KSM}, instance="b"}}': 1,
    f'kube_pod_owner{{{MAIL}, owner_kind="Job", owner_name="mail", owner_is_controller="true", {KSM}, instance="a"}}': 1,
    f'kube_pod_labels{{{CART}, label_team="checkout", {KSM}, instance="a"}}': 1,
    f'kube_pod_labels{{{MAIL}, {KSM}, instance="a"}}': 1,
    f'shortproc:owner_short_ends:rate5m{{{CRON}, mode="ebpf_core", {N1}}}': 3,
    f'shortproc:owner_short_ends:baseline{{{CRON}, mode="ebpf_core", {N1}}}': 2,
}
"""Of two kube-state-metrics at once, as during its upgrade."""

ANSWERS: list[dict[str, float]] = [
    {
        f'{{kind="pod", {CART_WEB}, {N1}}}': 1,
        f'{{kind="pod", {MAIL_SEND}, {N2}}}': 2,
        f"{{{CRON}, {N1}}}": 3,
        f"{{{OTHER}, {N1}}}": 4,
    },
    {f'{{user="www-data", {N1}}}': 1},
    {f'{{spawner="cron", {N1}}}': 1},
    {f'{{{CRON}, comm="true", {N1}}}': 3},
    {f'{{kind="pod", {CART_WEB}, {N1}}}': 1, f'{{kind="pod", {MAIL_SEND}, {N2}}}': 0.5},
    {f'{{kind="pod", {CART_WEB}, {N1}}}': 0.1},
    {f'{{{CRON}, mode="ebpf_core", {N1}}}': 1.5},
    {'{instance="n1"}': 0.5},
    {
        '{namespace="shop", owner_kind="ReplicaSet", owner_name="cart-5f7d"}': 1,
        '{namespace="shop", owner_kind="Job", owner_name="mail"}': 2,
    },
    {'{label_team="checkout"}': 1, "{}": 2},
    {f"{{{CART_WEB}}}": 0.5},
    {f"{{{CART_WEB}}}": 1},
]
"""Of each query of the section, in its order: labels and values."""


def asked(folder: Path, answers: dict[str, dict[str, float]], release: Release = INSTALLED) -> None:
    """Expect these answers to these queries after ten minutes."""
    series = [{"series": name, "values": f"0+{step}x20"} for name, step in A_MINUTE.items()]
    series += [{"series": name, "values": f"{value}+0x20"} for name, value in CONSTANT.items()]
    tests: list[dict[str, Any]] = [
        {"expr": expr, "eval_time": "10m", "exp_samples": [{"labels": labels, "value": value} for labels, value in answer.items()]}
        for expr, answer in answers.items()
    ]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": tests}
    (folder / "test.yml").write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}))
    promtool("test", "rules", "test.yml", cwd=folder, release=release)


@each_release
def test_the_documented_queries_find_who_is_responsible(tmp_path: Path, release: Release) -> None:
    """A join over labels of other exporters parses in any case; whether it finds anything, only their series show."""
    section = PROMQL.read_text().partition("## Who is responsible")[2].partition("\n## ")[0]
    queries = [query for block in re.findall(r"```promql\n(.*?)```", section, re.DOTALL) for query in block.strip().split("\n\n")]
    asked(tmp_path, dict(zip(queries, ANSWERS, strict=True)), release)


def test_a_wrong_answer_is_found(tmp_path: Path) -> None:
    """The check above is worth something."""
    with pytest.raises(AssertionError, match="FAILED"):
        asked(tmp_path, {"sum(kube_pod_owner)": {"{}": 2}})


def test_the_dashboard_compares_with_the_cpu_of_containers(tmp_path: Path) -> None:
    """The one query that needs cAdvisor, with Grafana's variables filled in; its owners have the name of the other panels."""
    (panel,) = (panel for panel in json.loads(PAGE.read_text())["panels"] if panel["title"] == "Share of a container's CPU")
    (target,) = panel["targets"]
    expr = target["expr"]
    for name, value in {"job": ".*", "instance": "n1", "__rate_interval": "5m"}.items():
        expr = expr.replace(f"${name}", value)
    asked(tmp_path, {expr: {f'{{kind="pod", {CART_WEB}, owner="pod shop/cart-5f7d-x2x4z/web"}}': 0.5}})
