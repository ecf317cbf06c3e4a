"""Container runtimes with state of their own below a folder, at the places where that of the host would be.

Nothing of them is left: they have namespaces of their own for processes and mounts, and new cgroups and directories are removed.
"""

from __future__ import annotations

import _socket
import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from exporter.attribution.container_names import ContainerNames
from exporter.attribution.owners import Owners
from exporter.loaders.broker_process import BrokerProcess
from exporter.loaders.handover import MAX_MESSAGE
from exporter.model.owner import ContainerName, Owner
from exporter.sources.ebpf.source import EbpfSource
from tests.kernel.programs import until
from tests.kernel.test_origins import of
from tests.origins import origins_of

COUNT = int(os.environ.get("CONTAINERS", "5"))
"""Containers of each kind that a test runs."""
IMAGE = "localhost/test:1"
_START_SECONDS = 20
_CGROUPS = "/sys/fs/cgroup"
_FIXED = [Path("/run") / name for name in ("containerd", "docker", "libpod")]
"""Where runtimes put sockets and locks, whatever they are told."""
_PAUSE = "#include <unistd.h>\nint main(void) { return pause(); }\n"
_AT_ONCE = "int main(void) { return 0; }\n"


class Unavailable(Exception):
    """The runtime is missing, or no container can run here. The message says why."""


@contextlib.contextmanager
def new_root(programs: Sequence[str], *cgroups: str) -> Iterator[Path]:
    """A folder for a runtime, with the short path that sockets need. It and new cgroups below those named are removed in the end."""
    if os.geteuid():
        raise Unavailable("needs root")
    if missing := [program for program in programs if shutil.which(program) is None]:
        raise Unavailable(f"{', '.join(missing)}: not installed")
    before = _below(cgroups)
    made = [folder for folder in _FIXED if not folder.exists()]
    root = Path(tempfile.mkdtemp(prefix="pm"))
    try:
        yield root
    finally:
        _remove(root, _below(cgroups) - before)
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)


def _below(cgroups: Sequence[str]) -> set[Path]:
    return {Path(folder) for folder, _, _ in os.walk(_CGROUPS) if any(f"/{name}/" in f"{folder}/" for name in cgroups)}


def _remove(root: Path, cgroups: set[Path]) -> None:
    """Remove what a runtime left, once its monitors (conmon) and their clean-up have exited."""
    deadline = time.monotonic() + 20
    while (root.exists() or any(folder.exists() for folder in cgroups)) and time.monotonic() < deadline:
        shutil.rmtree(root, ignore_errors=True)
        for folder in sorted(cgroups, key=lambda path: len(path.parts), reverse=True):
            with contextlib.suppress(OSError):  # those of another runtime on this machine have processes
                folder.rmdir()
        time.sleep(0.1)
    assert not root.exists()


def image(root: Path, comm: str) -> Path:
    """Make an image of two programs, as `docker save` does: `/comm` exits at once, `/pause` waits and is its default."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for name, source in (("pause", _PAUSE), (comm, _AT_ONCE)):
            (root / "program.c").write_text(source)
            subprocess.run(["cc", "-static", "-o", root / name, root / "program.c"], check=True, capture_output=True)
            archive.add(root / name, name)
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    with tarfile.open(root / "image.tar", "w") as archive:
        for name, content in (("config.json", config), ("manifest.json", manifest), ("layer.tar", layer.getvalue())):
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return root / "image.tar"


def run(*command: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a command to its end. Raises `Unavailable` with the last line that it wrote, if it fails."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=environment)
    if done.returncode:
        raise Unavailable(_last_line(done.stderr))
    return done.stdout.strip()


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


@contextlib.contextmanager
def daemon(root: Path, ready: Path, *command: str) -> Iterator[None]:
    """Run a daemon until the end of the block; its containers and mounts end with it. It is ready when its socket is there."""
    log = root / "daemon.log"
    alone = ["unshare", "--fork", "--kill-child", "--pid", "--mount-proc", "--propagation", "private"]
    with log.open("wb") as output:
        process = subprocess.Popen([*alone, *command], stdout=output, stderr=output)
    try:
        until(lambda: ready.exists() or process.poll() is not None, bool, _START_SECONDS)
        if not ready.exists():
            raise Unavailable(f"{command[0]} does not start: {_last_line(log.read_text(errors='replace'))}")
        yield
    finally:
        process.kill()
        process.wait(60)


class Docker:
    """The Docker of a folder. Containers have no network."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._environment = os.environ | {"DOCKER_HOST": f"unix://{root}/docker.sock", "DOCKER_CONFIG": str(root)}

    @classmethod
    @contextlib.contextmanager
    def running(cls, comm: str) -> Iterator[Docker]:
        with new_root(["dockerd", "docker", "containerd", "runc", "cc", "unshare"], "docker", "kubepods") as root:
            places = ["--data-root", f"{root}/var/lib/docker", "--exec-root", f"{root}/run/docker", "--pidfile", f"{root}/docker.pid"]
            network = ["--bridge=none", "--iptables=false", "--ip6tables=false"]
            listening = root / "docker.sock"
            with daemon(root, listening, "dockerd", *places, *network, "--storage-driver=vfs", "--host", f"unix://{listening}"):
                docker = cls(root)
                docker.command("load", "--input", str(image(root, comm)))
                yield docker

    def command(self, *words: str) -> str:
        return run("docker", *words, environment=self._environment)

    def run(self, name: str, *options: str, program: str) -> None:
        """Run a program in a container to its end."""
        self.command("run", "--network=none", "--name", name, *options, "--entrypoint", f"/{program}", IMAGE)


@contextlib.contextmanager
def names(root: Path, logs: Path | None = None) -> Iterator[ContainerNames]:
    """Names from the state of runtimes below `root`, told by a broker in a thread, and from kubelet's directories `pods` and `containers`.

    The broker has been asked before, so it watches.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def ask(ids: Sequence[str]) -> dict[str, ContainerName]:
        ours.send(" ".join(["containers", *ids]).encode())
        return {each: ContainerName(*name) for each, name in json.loads(ours.recv(MAX_MESSAGE))["containers"].items()}

    broker = BrokerProcess(_socket.socket(fileno=theirs.detach()), [], [], str(root))
    thread = threading.Thread(target=broker.run)
    thread.start()
    with ours:
        ask([])
        pods, links = (str((logs or root / "none") / each) for each in ("pods", "containers"))
        names = ContainerNames(pods, links, ask)
        yield names
        names.close()
    thread.join(10)


def owners_of(source: EbpfSource, comm: str, names: ContainerNames) -> Counter[Owner]:
    """Short processes of that name by their owners, once all owners are known, or cannot be known."""
    origins = of(origins_of(source), comm.encode())
    owners = Owners("pod", names)
    until(lambda: [owners.owner(origin.cgroup) for origin in origins], all, 20)
    return Counter(owners.so_far(origin.cgroup)[0] for origin in origins.elements())
