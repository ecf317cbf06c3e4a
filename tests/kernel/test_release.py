"""The files of a release, as the workflow of a forge makes them: the same each time, and for each architecture."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from exporter import __version__
from tests.kernel.debian import CHECKOUT, NAME, build

pytestmark = [pytest.mark.commands, pytest.mark.anytime]

WORKFLOW = CHECKOUT / ".github/workflows/release.yml"
CHART = f"{NAME}-chart-{__version__}.tgz"
BILL = f"{NAME}-{__version__}.cdx.json"


def control(package: Path) -> dict[str, str]:
    fields = subprocess.run(["dpkg-deb", "-f", package], capture_output=True, text=True, check=True).stdout
    return dict(line.split(": ", 1) for line in fields.splitlines() if not line.startswith(" "))


def files(package: Path) -> dict[str, str]:
    """Each file with its checksum."""
    packed = subprocess.run(["dpkg-deb", "--ctrl-tarfile", package], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as unpacked:
        sums = unpacked.extractfile("./md5sums")
        assert sums is not None
        return {line[34:]: line[:32] for line in sums.read().decode().splitlines()}


def package(release: Path, architecture: str) -> Path:
    return next(release.glob(f"*_{architecture}.deb"))


def test_everything_is_there_with_its_checksum(release: Path) -> None:
    """Who downloads one of the files can check it."""
    sums = {line[66:]: line[:64] for line in (release / "SHA256SUMS").read_text().splitlines()}
    assert sums == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in release.iterdir() if path.name != "SHA256SUMS"}
    assert {CHART, BILL} < sums.keys()
    assert sorted(name.rpartition("_")[2] for name in sums if name.endswith(".deb")) == ["amd64.deb", "arm64.deb"]


def test_lintian_has_nothing_to_say(release: Path) -> None:
    """Neither errors nor warnings, but those that the overrides explain; an override that is no longer needed counts, too."""
    lintian = shutil.which("lintian")
    if lintian is None:
        pytest.skip("lintian is not installed")
    command = [lintian, "--allow-root", str(package(release, "arm64"))]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert [line for line in said.stdout.splitlines() if line[:2] in ("E:", "W:") or "unused-override" in line] == []


def test_packages_differ_in_nothing_but_the_architecture(release: Path) -> None:
    """So what is tested here holds for the others: a BPF object is of no processor. What has another byte order is refused."""
    here, there = package(release, "amd64"), package(release, "arm64")
    assert control(here) == control(there) | {"Architecture": "amd64"}
    assert files(here) == files(there)
    refused = subprocess.run([CHECKOUT / "deploy/debian/build", "--architecture", "s390x"], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr.partition(":")[0]) == (1, "cannot build for s390x")


def test_a_package_brings_manual_rules_and_dashboards(release: Path) -> None:
    """Where man, shells and whoever configures Prometheus and Grafana look for them."""
    there = files(package(release, "amd64")).keys()
    share = f"usr/share/{NAME}"
    assert {f"usr/share/man/man{section}/{NAME}.{section}.gz" for section in (1, 5)} <= there
    assert {f"usr/share/bash-completion/completions/{NAME}", f"usr/share/zsh/vendor-completions/_{NAME}"} <= there
    assert {f"{share}/prometheus/rules/{path.name}" for path in (CHECKOUT / "deploy/prometheus/rules").iterdir()} <= there
    assert {f"{share}/grafana/{path.name}" for path in (CHECKOUT / "grafana").glob("*.json")} <= there
    assert {f"usr/share/doc/{NAME}/{path.name}" for path in (CHECKOUT / "docs").glob("*.md")} <= there


def test_two_builds_are_the_same(release: Path, tmp_path: Path) -> None:
    """So that anyone can check that a published package was made from the source: elsewhere and later, bit by bit."""
    other = tmp_path / "a longer path"
    subprocess.run(["git", "clone", "-q", CHECKOUT, other], check=True)
    command = ["git", "ls-files", "-mo", "--deduplicate", "--exclude-standard"]
    for name in subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.splitlines():
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, other / name)
    (other / ".venv").symlink_to(CHECKOUT / ".venv")
    commit = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=other, capture_output=True, text=True, check=True).stdout.strip()
    options = ["-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    command = [sys.executable, "-m", "pip", "wheel", *options, "."]
    subprocess.run(command, cwd=other, env=os.environ | {"SOURCE_DATE_EPOCH": commit}, check=True, capture_output=True, timeout=120)
    wheel = next(tmp_path.glob("*.whl"))
    again = build(tmp_path, "--wheel", str(wheel), "--architecture", "arm64", of=other)
    assert files(again) == files(package(release, "arm64"))  # which says more than the next lines
    assert again.read_bytes() == package(release, "arm64").read_bytes()
    assert wheel.read_bytes() == (release / wheel.name).read_bytes()


def test_the_chart_is_packed_as_helm_reads_it(release: Path) -> None:
    """With rules and dashboards, which are links in the checkout, and nothing that .helmignore names."""
    with tarfile.open(release / CHART) as packed:
        names = packed.getnames()
        assert not [each.name for each in packed.getmembers() if not (each.isfile() or each.isdir()) or each.uid or each.uname]
    assert {f"{NAME}/Chart.yaml", f"{NAME}/files/rules/alerts.yml", f"{NAME}/files/dashboards/shortproc-host.json"} <= set(names)
    assert not [name for name in names if (name.endswith((".py", ".md")) and "/files/" in name) or "provisioning" in name]
    schemas = CHECKOUT / ".venv/schemas"
    if not (schemas / "helm_python").exists():
        pytest.skip("Helm is not installed: pip install --target .venv/schemas --group schemas")
    command = [sys.executable, str(CHECKOUT / "tests/unit/chart_rendering.py"), str(release / CHART)]
    rendered = subprocess.run(
        command, input=b'{"usual": {}}', env=os.environ | {"PYTHONPATH": str(schemas)}, capture_output=True, check=True
    )
    found = json.loads(rendered.stdout)["usual"]
    assert found["findings"] == []
    assert "kind: DaemonSet" in found["texts"]["daemonset.yaml"]


def test_the_bill_names_what_a_release_depends_on(release: Path) -> None:
    """The tool has checked the form; what is in it: this version, and each dependency with its package URL and licence."""
    bill = json.loads((release / BILL).read_text())
    root = bill["metadata"]["component"]
    assert (bill["bomFormat"], root["name"], root["version"]) == ("CycloneDX", NAME, __version__)
    required = re.search(r"(?m)^dependencies = \[(.*)\]$", (CHECKOUT / "pyproject.toml").read_text())
    assert required is not None
    wanted = {re.split(r"[<>=]", each)[0].lower().replace("_", "-") for each in re.findall(r'"([^"]+)"', required[1])}
    assert {each["purl"].removeprefix("pkg:pypi/").partition("@")[0] for each in bill["components"]} == wanted
    assert all(each["version"] and each["licenses"] for each in bill["components"])


def test_a_tag_of_another_version_is_refused() -> None:
    """A release whose files say another version than its tag cannot be taken back."""
    for tag, why in {
        "v99.0": f"the tag is v99.0, but exporter/__init__.py says {__version__}",
        f"v{__version__}": "has no section",
    }.items():
        command = [CHECKOUT / "deploy/release"]
        if tag != "v99.0" and f"## [{__version__}]" in (CHECKOUT / "CHANGELOG.md").read_text():
            continue
        refused = subprocess.run(command, env=os.environ | {"TAG": tag}, capture_output=True, text=True, check=False)
        assert (refused.returncode, why in refused.stderr) == (1, True)


def test_what_is_bundled_satisfies_the_wheel() -> None:
    """The package pins a release of prometheus_client of its own."""
    pinned = re.search(
        r"^prometheus_client==(\S+) --hash=sha256:[0-9a-f]{64}$", (CHECKOUT / "deploy/debian/bundled.txt").read_text(), re.MULTILINE
    )
    assert pinned is not None
    from packaging.requirements import Requirement  # noqa: PLC0415 - of the dev group only

    required = re.search(r'"(prometheus_client[^"]*)"', (CHECKOUT / "pyproject.toml").read_text())
    assert required is not None
    assert pinned[1] in Requirement(required[1]).specifier


def test_the_workflow_is_one() -> None:
    """By the schema of its form; and each target of make that it runs is there."""
    tool = Path(sys.executable).with_name("check-jsonschema")
    if not tool.exists():
        pytest.skip("check-jsonschema is not installed")
    checked = subprocess.run([tool, "--builtin-schema", "vendor.github-workflows", WORKFLOW], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    steps = [step.get("run", "") for job in yaml.safe_load(WORKFLOW.read_text())["jobs"].values() for step in job["steps"]]
    targets = {target for step in steps for target in re.findall(r"\bmake ([a-z-]+)", step)}
    assert targets == {"release", "images"}
    makefile = (CHECKOUT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_one_base_is_pinned() -> None:
    """Files and image are made with the same tools, of the same Debian."""
    bases = [
        re.findall(r"debian:\S+@sha256:[0-9a-f]{64}", path.read_text()) for path in (WORKFLOW, CHECKOUT / "deploy/container/Dockerfile")
    ]
    assert bases[0] == bases[1]
    assert len(bases[0]) == 1
