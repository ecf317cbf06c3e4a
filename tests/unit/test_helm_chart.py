"""The Helm chart: what it renders for a table of values, by Helm itself; that a cluster and the exporter accept it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter import __version__, cli
from exporter.attribution.pod_logs import CONTAINERS, PODS
from exporter.config.options import Attribution
from exporter.process import privileges
from tests.unit.test_packaging import OF_THE_HOST, ROOT

CHART = ROOT / "deploy/helm"
RULES = ROOT / "deploy/prometheus/rules"
SCHEMAS = ROOT / ".venv/schemas"
KINDS = {"ConfigMap", "DaemonSet", "NetworkPolicy", "PodMonitor", "PrometheusRule", "Service", "ServiceAccount", "ServiceMonitor"}
MISSPELT = ("DaemonSet", "PodMonitor")
Manifest = dict[str, Any]

TLS = {"existingSecret": "web", "scheme": "HTTPS", "probeHeaders": [{"name": "Authorization", "value": "Basic cHJvYmU6cHJvYmU="}]}
RECORDS = {"config": {"sinks": {"sqlite": {"path": "/var/lib/shortproc-exporter/records.db"}}, "log": {"format": "json"}}}
SETS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "kube-prometheus-stack": {
        "releaseLabel": True,
        "commonLabels": {"team": "sre"},
        "prometheus": {"monitor": {"enabled": True, "additionalLabels": {"shard": "one"}, "sampleLimit": 20000}},
        "prometheusRule": {"enabled": True, "namespace": "rules"},
        "dashboards": {"enabled": True, "namespace": "grafana", "annotations": {"grafana_folder": "Hosts"}},
    },
    "PodMonitor": {"service": {"enabled": False}, "prometheus": {"podMonitor": {"enabled": True, "interval": "60s"}}},
    "netlink": {"modes": {"ebpf": False, "netlink": True}, "dnsPolicy": "ClusterFirstWithHostNet"},
    "scans": {"modes": {"ebpf": False}, "hostMounts": False},
    "CRI-O": {"seccompProfile": {"type": "Localhost", "localhostProfile": "bpf.json"}, "extraCapabilities": ["SYS_RESOURCE"]},
    "TLS": {
        "webConfig": TLS,
        "prometheus": {
            "monitor": {
                "enabled": True,
                "tlsConfig": {"ca": {"secret": {"name": "ca", "key": "ca.crt"}}, "serverName": "shortproc"},
                "basicAuth": {"username": {"name": "login", "key": "user"}, "password": {"name": "login", "key": "password"}},
            }
        },
    },
    "NetworkPolicy": {
        "networkPolicy": {
            "enabled": True,
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "egress": [{"ports": [{"port": 443}]}],
        },
    },
    "registry and names": {
        "global": {"imageRegistry": "registry.example", "imagePullSecrets": ["first"]},
        "imagePullSecrets": [{"name": "second"}],
        "image": {"repository": "team/shortproc-exporter", "digest": f"sha256:{'0' * 64}"},
        "fullnameOverride": "shortproc",
        "namespaceOverride": "observability",
        "serviceAccount": {"create": False, "name": "existing"},
    },
    "scheduling": {
        "priorityClassName": "system-node-critical",
        "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}],
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "resources": {"limits": {"cpu": "200m", "memory": "512Mi"}},
        "updateStrategy": {"rollingUpdate": {"maxUnavailable": 3}},
        "startupProbe": {"tcpSocket": {"port": "metrics"}},
        "podLabels": {"team": "sre"},
        "podAnnotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"},
    },
    "records": {
        **RECORDS,
        "extraVolumes": [{"name": "records", "hostPath": {"path": "/var/lib/shortproc-exporter"}}],
        "extraVolumeMounts": [{"name": "records", "mountPath": "/var/lib/shortproc-exporter"}],
        "extraManifests": ["apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-more'}"],
    },
    "limits": {
        "prometheusRule": {
            "enabled": True,
            "comm": False,
            "owner": False,
            "limits": {"burst_limit_per_second": 3000000, "capture_ratio": {"netlink": 0.9}},
            "disabled": ["ShortprocExporterAbsent"],
            "additionalAlertLabels": {"team": "sre"},
            "runbookUrl": "https://git.example/shortproc-exporter/blob/main/",
        },
    },
}
REFUSED: dict[str, dict[str, Any]] = {
    "additional properties 'hostPIDs' not allowed": {"hostPIDs": True},
    "additional properties 'lag' not allowed": {"config": {"lag": {}}},
    "at '/modes/ebpf': got string, want boolean": {"modes": {"ebpf": "true"}},
    "ShortprocBrust is neither an alert nor a limit": {"prometheusRule": {"enabled": True, "disabled": ["ShortprocBrust"]}},
    "burst is neither an alert nor a limit": {"prometheusRule": {"enabled": True, "limits": {"burst": 1}}},
    "would scrape each pod twice": {"prometheus": {"monitor": {"enabled": True}, "podMonitor": {"enabled": True}}},
    "needs service.enabled": {"service": {"enabled": False}, "prometheus": {"monitor": {"enabled": True}}},
}


def program(name: str, given: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the programs beside this file, with the packages of the group `schemas`."""
    if not SCHEMAS.exists():
        pytest.skip("the schemas are not installed: pip install --target .venv/schemas --group schemas")
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name(name)), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(SCHEMAS)}
    return subprocess.run(command, input=given, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def chart() -> dict[str, Any]:
    """What Helm makes of each set of values, and of those that it has to refuse."""
    ran = program("chart_rendering.py", json.dumps(SETS | REFUSED), str(CHART))
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def manifests(chart: dict[str, Any], name: str) -> list[Manifest]:
    assert "error" not in chart[name], chart[name]
    texts = {template: text for template, text in chart[name]["texts"].items() if template != "NOTES.txt"}
    return [each for text in texts.values() for each in yaml.load_all(text, yaml.CSafeLoader) if each]


def only(chart: dict[str, Any], name: str, kind: str) -> Manifest:
    """The one object of this kind."""
    (found,) = [each for each in manifests(chart, name) if each["kind"] == kind]
    return found


def pod(chart: dict[str, Any], name: str) -> Manifest:
    spec: Manifest = only(chart, name, "DaemonSet")["spec"]["template"]["spec"]
    return spec


def container(chart: dict[str, Any], name: str) -> Manifest:
    (found,) = pod(chart, name)["containers"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def faults(chart: dict[str, Any]) -> str:
    """What the schemas have against every object, and against some that are misspelt. What several sets have in common is checked once."""
    found = {json.dumps(each, sort_keys=True): each for name in SETS for each in manifests(chart, name)}
    assert {each["kind"] for each in found.values()} == KINDS
    misspelt = [{**only(chart, "PodMonitor", kind), "metadata": {"name": "misspelt"}, "spell": True} for kind in MISSPELT]
    return program("manifest_schemas.py", yaml.dump_all([*found.values(), *misspelt], Dumper=yaml.CSafeDumper)).stderr


@pytest.mark.parametrize("name", SETS)
def test_the_linter_finds_nothing(chart: dict[str, Any], name: str) -> None:
    """Users lint with their own values."""
    assert chart[name].get("findings") == [], chart[name]


def test_a_cluster_accepts_every_object(faults: str) -> None:
    """A misspelt key would be refused, or worse, ignored."""
    assert [fault for fault in faults.splitlines() if not fault.partition(": ")[0].endswith(" misspelt")] == []


@pytest.mark.parametrize("kind", MISSPELT)
def test_a_misspelt_key_is_found(faults: str, kind: str) -> None:
    """The check above is worth something."""
    assert f"{kind} misspelt: " in faults


@pytest.mark.parametrize("message", REFUSED)
def test_wrong_values_are_refused(chart: dict[str, Any], message: str) -> None:
    """Better before the rollout than by a pod that does not start, or an alert that never fires."""
    assert message in chart[message].get("error", "")


@pytest.mark.parametrize("name", SETS)
def test_the_exporter_accepts_its_flags_and_configuration(chart: dict[str, Any], name: str, tmp_path: Path) -> None:
    """The pods would not start. The folder of the test stands for what is mounted; sinks need one that is not root's."""
    if os.geteuid() == 0:
        os.chown(tmp_path, privileges.NOBODY, privileges.NOBODY)
    (config,) = [each["data"]["exporter.yml"] for each in manifests(chart, name) if "exporter.yml" in each.get("data", {})]
    given = container(chart, name)["args"]
    for mount in container(chart, name)["volumeMounts"]:
        if "shortproc-exporter" in mount["mountPath"]:
            given = [flag.replace(f"{mount['mountPath']}/", f"{tmp_path}/") for flag in given]
            config = config.replace(f"{mount['mountPath']}/", f"{tmp_path}/")
    (tmp_path / "exporter.yml").write_text(config)
    (tmp_path / "web.yml").write_text("rate_limit: {interval: 100ms, burst: 50}\n")
    assert cli.main(["check-config", *given]) == 0


def test_versions_agree(chart: dict[str, Any]) -> None:
    """By default the image is that of the same release."""
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (about["version"], about["appVersion"]) == (__version__, __version__)
    assert container(chart, "defaults")["image"] == f"shortproc-exporter:{__version__}"


@pytest.mark.parametrize(
    ("name", "added", "flags"),
    [
        ("defaults", {"BPF", "PERFMON"}, []),
        ("netlink", {"NET_ADMIN"}, ["--no-ebpf"]),
        ("scans", set(), ["--fast-scan"]),
        ("CRI-O", {"BPF", "PERFMON", "SYS_RESOURCE"}, []),
    ],
)
def test_a_pod_has_only_the_privileges_of_its_modes(chart: dict[str, Any], name: str, added: set[str], flags: list[str]) -> None:
    """And it does not try a mode that it cannot run, which would be an alert."""
    security = container(chart, name)["securityContext"]
    assert security["capabilities"]["drop"] == ["ALL"]
    assert set(security["capabilities"]["add"]) == {"SETUID", "SETGID"} | added
    assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"], "privileged" in security) == (False, True, False)
    assert pod(chart, name).get("hostNetwork", False) == ("NET_ADMIN" in added)
    assert container(chart, name)["args"][2:] == flags


def test_pods_see_of_the_node_what_owners_need(chart: dict[str, Any]) -> None:
    """Read-only, at the paths that the code reads; otherwise every process of the node would belong to nobody."""
    assert {PODS, CONTAINERS} < set(OF_THE_HOST.values())
    volumes = {each["name"]: each["hostPath"]["path"] for each in pod(chart, "defaults")["volumes"] if "hostPath" in each}
    mounts = {each["mountPath"]: each for each in container(chart, "defaults")["volumeMounts"] if each["name"] in volumes}
    assert {path: volumes[each["name"]] for path, each in mounts.items()} == OF_THE_HOST
    assert all(each["readOnly"] for each in mounts.values())
    named = yaml.safe_load(only(chart, "defaults", "ConfigMap")["data"]["exporter.yml"])["attribution"]["passwd_file"]
    assert OF_THE_HOST[named] == Attribution().passwd_file
    assert not [each for each in pod(chart, "scans")["volumes"] if "hostPath" in each]


def test_a_changed_configuration_restarts_the_pods(chart: dict[str, Any]) -> None:
    """Most options need it, and nothing else would tell Kubernetes."""
    sums = {
        only(chart, name, "DaemonSet")["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for name in ("defaults", "records")
    }
    assert len(sums) == 2


@pytest.mark.parametrize(
    ("name", "kind", "key"), [("TLS", "ServiceMonitor", "endpoints"), ("PodMonitor", "PodMonitor", "podMetricsEndpoints")]
)
def test_the_labels_of_owners_survive_the_scrape(chart: dict[str, Any], name: str, kind: str, key: str) -> None:
    """By default Prometheus renames them to exported_pod and so on. And the series of a node survive its pod."""
    monitor = only(chart, name, kind)
    (endpoint,) = monitor["spec"][key]
    assert endpoint["honorLabels"]
    assert endpoint["scheme"] == ("https" if name == "TLS" else "http")
    assert {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "instance"} in endpoint["relabelings"]
    selected = monitor["spec"]["selector"]["matchLabels"].items()
    assert selected <= only(chart, name, "DaemonSet")["spec"]["template"]["metadata"]["labels"].items()
    assert selected <= only(chart, "defaults", "Service")["metadata"]["labels"].items()
    assert "shortproc" in monitor["metadata"]["labels"][monitor["spec"]["jobLabel"]]


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_probes_use_tls_and_the_password(chart: dict[str, Any], probe: str) -> None:
    """Both apply to /-/healthy and /-/ready, too; without them the pod would be restarted for ever."""
    request = container(chart, "TLS")[probe]["httpGet"]
    assert (request["scheme"], request["httpHeaders"]) == ("HTTPS", TLS["probeHeaders"])


def test_a_probe_can_do_without_http(chart: dict[str, Any]) -> None:
    """Kubelet has no client certificate; and two handlers in a probe are refused."""
    probe = container(chart, "scheduling")["startupProbe"]
    assert "httpGet" not in probe
    assert probe["tcpSocket"] == {"port": "metrics"}


def groups_of_the_files(*names: str) -> list[Manifest]:
    return [group for name in names for group in yaml.safe_load((RULES / f"{name}.yml").read_text())["groups"]]


def test_rules_and_dashboards_are_those_of_the_repository(chart: dict[str, Any]) -> None:
    """One source for each."""
    rules = only(chart, "kube-prometheus-stack", "PrometheusRule")["spec"]["groups"]
    assert rules == groups_of_the_files("settings", "recording", "alerts", "comm", "owner")
    found = [each for each in manifests(chart, "kube-prometheus-stack") if each["metadata"]["labels"].get("grafana_dashboard") == "1"]
    dashboards = {name: json.loads(text) for each in found for name, text in each["data"].items()}
    assert dashboards == {path.name: json.loads(path.read_text()) for path in (ROOT / "grafana").glob("*.json")}
    assert {each["metadata"]["namespace"] for each in found} == {"grafana"}


def test_values_change_limits_labels_and_the_runbook(chart: dict[str, Any]) -> None:
    """And nothing else of the rules."""
    expected = groups_of_the_files("settings", "recording", "alerts")
    for group in expected:
        group["rules"] = [rule for rule in group["rules"] if rule.get("alert") != "ShortprocExporterAbsent"]
        for rule in group["rules"]:
            if rule.get("record") == "shortproc:setting:burst_limit_per_second":
                rule["expr"] = "vector(3e+06)"
            if rule.get("labels") == {"mode": "netlink"}:
                rule["expr"] = "vector(0.9)"
            if "alert" in rule:
                rule["labels"]["team"] = "sre"
                rule["annotations"]["runbook_url"] = (
                    f"https://git.example/shortproc-exporter/blob/main/{rule['annotations']['runbook_url']}"
                )
    assert only(chart, "limits", "PrometheusRule")["spec"]["groups"] == expected
