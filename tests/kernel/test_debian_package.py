"""The Debian package is built, installed, run, upgraded and removed, on a throw-away copy of this machine."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from bench.exporter import free_port
from exporter import __version__
from exporter.loaders.core import refusal
from exporter.process import version
from tests.kernel.debian import CHECKOUT, NAME
from tests.kernel.nspawn import booted
from tests.kernel.programs import until
from tests.kernel.test_app import STOP_SECONDS
from tests.kernel.throwaway import Machine, throwaway

pytestmark = pytest.mark.commands

CONFIG = f"etc/{NAME}/exporter.yml"
ENABLED = f"etc/systemd/system/multi-user.target.wants/{NAME}.service"
CAPABILITIES = "-all,+bpf,+perfmon"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
DPKGS_OWN = re.compile(r"(var/lib/dpkg|var/log|var/cache|var/lib/systemd)/(?!.*shortproc)")


@pytest.fixture(scope="module")
def package(release: Path) -> Path:
    """For this architecture."""
    architecture = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    return next(release.glob(f"*_{architecture}.deb"))


@contextmanager
def suitable(package: Path, folder: Path) -> Iterator[Machine]:
    """A machine that has what the package depends on, and not the package."""
    depends = subprocess.run(["dpkg-deb", "-f", package, "Depends"], capture_output=True, text=True, check=True).stdout
    for each in re.findall(r"(?:^|, )([\w-]+)", depends):
        if subprocess.run(["dpkg-query", "-W", each], capture_output=True, check=False).returncode != 0:
            pytest.skip(f"{each} is not installed")
    if Path(f"/usr/bin/{NAME}").exists():
        pytest.skip("the package is installed on this machine")
    with throwaway(folder) as machine:
        yield machine


@pytest.fixture(scope="module")
def installed(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One that has the package, for all who only run it: to compile takes longer than most tests."""
    with suitable(package, tmp_path_factory.mktemp("machine")) as machine:
        install(machine, package)
        yield machine


def install(machine: Machine, package: Path) -> None:
    shutil.copy(package, machine.root / "tmp")
    machine.run("dpkg", "--force-confdef", "--force-confold", "-i", f"/tmp/{package.name}")
    (machine.root / "tmp" / package.name).unlink()


def uncompiled(folder: Path) -> list[Path]:
    """The modules that the interpreter would compile at each start, since their compiled form is missing or of another file."""
    missing = []
    for source in folder.rglob("*.py"):
        compiled = next((source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc"), None)
        # PEP 552: magic, flags, then the time of the source
        if compiled is None or struct.unpack_from("<I", compiled.read_bytes(), 8)[0] != int(source.stat().st_mtime):
            missing.append(source)
    return missing


def next_version(package: Path, folder: Path) -> Path:
    """The same with a higher version, and another configuration."""
    subprocess.run(["dpkg-deb", "-R", package, folder / "tree"], check=True)
    control = folder / "tree/DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*", "Version: 99.1-1", control.read_text()))
    with (folder / "tree" / CONFIG).open("a") as config:
        config.write("# new in this version\n")
    later = folder / f"{NAME}_99.1-1.deb"
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "-b", folder / "tree", later], check=True, capture_output=True)
    return later


@pytest.mark.anytime
def test_life_of_a_package(package: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Installed it is enabled and works; an upgrade keeps what the administrator changed; after a purge nothing is left."""
    with suitable(package, tmp_path) as machine:
        lives(machine, package, next_version(package, tmp_path_factory.mktemp("later")))


def lives(machine: Machine, package: Path, later: Path) -> None:
    before = machine.written()
    install(machine, package)
    assert f"version {__version__} (revision: {version.revision()})" in machine.run(NAME, "--version")
    assert machine.run(NAME, "check-config", f"/{CONFIG}") == f"/{CONFIG}: ok\n"
    assert "mode auto selects: " in machine.run(NAME, "doctor")
    assert (machine.root / ENABLED).is_symlink()
    assert not uncompiled(machine.root / f"usr/lib/{NAME}"), "compiling at each start takes a second, and 5 MiB for as long as it runs"
    texts = re.findall(r"/(usr/share/common-licenses/[\w.-]*\w)", (machine.root / f"usr/share/doc/{NAME}/copyright").read_text())
    assert {Path(text).name for text in texts if (machine.root / text).is_file()} == {"Apache-2.0", "GPL-2"}

    changed = "metrics: {max_comms: 40}\n"
    (machine.root / CONFIG).write_text(changed)
    (machine.root / ENABLED).unlink()  # systemctl disable
    install(machine, later)
    assert machine.run("dpkg-query", "-W", "-f", "${Version} ${Status}", NAME) == "99.1-1 install ok installed"
    assert (machine.root / CONFIG).read_text() == changed
    assert "# new in this version" in (machine.root / f"{CONFIG}.dpkg-dist").read_text()
    assert not (machine.root / ENABLED).is_symlink(), "a service that was disabled must not come back"

    machine.run("dpkg", "--remove", NAME)
    assert (machine.root / CONFIG).read_text() == changed
    assert not (machine.root / f"usr/lib/{NAME}").exists()
    records = machine.root / f"var/lib/private/{NAME}/records.jsonl"
    records.parent.mkdir(parents=True)
    records.touch()
    machine.run("dpkg", "--purge", NAME)
    assert not {path for path in machine.written() - before if not DPKGS_OWN.match(path)}


def as_the_unit(machine: Machine, port: int, *flags: str, capabilities: str = CAPABILITIES) -> list[str]:
    """The command that runs it as the unit does, where no service manager is."""
    setpriv = ["setpriv", "--reuid=64999", "--regid=64999", "--clear-groups", "--no-new-privs"]
    setpriv += [f"--{kind}={capabilities}" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
    return machine.command(*setpriv, NAME, f"--config.file=/{CONFIG}", f"--web.listen-address=127.0.0.1:{port}", *flags)


def metrics(port: int) -> str:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


@pytest.mark.anytime
def test_runs_as_in_the_unit(installed: Machine) -> None:
    """As a user with only the two capabilities: best mode, READY when it serves, watchdog fed, reload told, STOPPING at the end."""
    port, name = free_port(), f"@shortproc-test-{os.getpid()}"
    command = as_the_unit(installed, port)
    environment = {"PATH": PATH, "NOTIFY_SOCKET": name, "WATCHDOG_USEC": "90000000"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name.replace("@", "\0"))
        systemd.settimeout(10)
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as child:
            try:
                assert systemd.recv(100) == b"READY=1"
                if refusal() is None:
                    assert 'shortproc_detection_mode{mode="ebpf_core"} 1.0' in metrics(port)
                assert systemd.recv(100) == b"WATCHDOG=1"
                child.send_signal(signal.SIGHUP)
                heard = [systemd.recv(100).split(b"\n")[0] for _ in range(3)]
                assert heard[-3:] in ([b"RELOADING=1", b"READY=1", b"WATCHDOG=1"], [b"WATCHDOG=1", b"RELOADING=1", b"READY=1"])
                child.send_signal(signal.SIGTERM)
                assert until(lambda: systemd.recv(100), lambda message: message == b"STOPPING=1")
                _, said = child.communicate(timeout=STOP_SECONDS)
            finally:
                if child.poll() is None:
                    child.kill()
    assert child.returncode == 0
    assert "Traceback" not in said


@pytest.mark.anytime
@pytest.mark.parametrize("drop_in", [False, True])
def test_netlink_as_in_the_unit(installed: Machine, drop_in: bool) -> None:
    """What docs/install.md says of it: the drop-in brings names and CPU. (In a container's pid namespace, systemd can't show that.)"""
    added = re.search(r"Mode `netlink` .*?AmbientCapabilities=CAP_(\w+)", (CHECKOUT / "docs/install.md").read_text(), re.DOTALL)
    assert added is not None
    capabilities = f"{CAPABILITIES},+{added[1].lower()}" if drop_in else CAPABILITIES
    port = free_port()
    command = as_the_unit(installed, port, "--no-ebpf", capabilities=capabilities)
    with subprocess.Popen(command, env={"PATH": PATH}, stderr=subprocess.PIPE, text=True) as child:
        try:
            mode = until(lambda: active(port) or child.poll() is not None, bool)
            if mode != "netlink":
                pytest.skip("the proc connector is not for us here")
            subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
            assert until(lambda: sample(port, r'processes_total\{outcome="ok"\}'), bool)
            cpu = until(lambda: sample(port, "processes_cpu_seconds_total"), bool, seconds=2)
            assert (cpu > 0) == drop_in
        finally:
            child.kill()


def sample(port: int, name: str) -> float:
    found = re.search(rf"^shortproc_ended_{name} (.*)", metrics(port), re.MULTILINE)
    return float(found[1]) if found else 0.0


def active(port: int) -> str | bool:
    """The mode; nothing before there is one."""
    with suppress(OSError):
        found = re.search(r'^shortproc_detection_mode\{mode="(\w+)"\} 1', metrics(port), re.MULTILINE)
        return found is not None and found[1]
    return False


def test_the_unit_under_systemd(installed: Machine) -> None:
    """The service manager itself starts it as the unit says: hardened, in the best mode, with a sink; reloads and stops it.

    The last one, for it configures the machine, and takes it over.
    """
    port, machine = free_port(), installed
    (machine.root / f"etc/default/{NAME}").write_text(f'ARGS="--web.listen-address=127.0.0.1:{port}"\n')
    (machine.root / CONFIG).write_text(f"sinks: {{jsonl: {{path: /var/lib/{NAME}/records.jsonl}}}}\n")
    with booted(machine, f"{NAME}.service") as container:
        systemctl = container.systemctl
        assert until(lambda: systemctl("is-active", NAME), lambda state: state in ("active", "failed")) == "active", systemctl(
            "status", NAME
        )
        if refusal() is None:
            assert 'shortproc_detection_mode{mode="ebpf_core"} 1.0' in metrics(port)
            subprocess.run(["/bin/true"], check=True)
            records = machine.root / f"var/lib/private/{NAME}/records.jsonl"
            assert until(lambda: records.exists() and "true" in records.read_text(), bool)
        systemctl("reload", NAME)
        assert until(lambda: systemctl("is-active", NAME), lambda state: state != "reloading") == "active"
        systemctl("stop", NAME)
        assert systemctl("show", "-P", "Result", NAME) == "success"
