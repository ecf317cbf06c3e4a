"""containerd with its CRI plugin, asked as kubelet asks it: gRPC over its socket, by curl, since Debian has no crictl.

Messages are of cri-api's `runtime/v1/api.proto`; here a message is a dictionary from the numbers of its fields to their values.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Union

from tests.kernel.container_runtimes import IMAGE, Unavailable, daemon, image, new_root, run

Value = Union[str, int, "Mapping[int, Value]"]
_HOST_NETWORK = {1: {1: 2}}  # NamespaceOption.network = NODE, so that no network plugin is needed
_CONFIG = """
version = 2
root = "{root}/var/lib/containerd"
state = "{root}/run/containerd"
[grpc]
address = "{root}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{root}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
restrict_oom_score_adj = true
disable_apparmor = true
"""


class Containerd:
    """The containerd of a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._logs, self._links = root / "pods", root / "containers"
        for folder in (self._logs, self._links):
            folder.mkdir()

    @classmethod
    @contextlib.contextmanager
    def running(cls, comm: str) -> Iterator[Containerd]:
        programs = ["containerd", "containerd-shim-runc-v2", "ctr", "runc", "curl", "cc", "unshare"]
        with new_root(programs, "kubepods", "k8s.io") as root:
            config = root / "config.toml"
            config.write_text(_CONFIG.format(root=root, image=IMAGE))
            socket = root / "containerd.sock"
            with daemon(root, socket, "containerd", "--config", str(config)):
                run("ctr", "--address", socket, "--namespace", "k8s.io", "images", "import", "--no-unpack", image(root, comm))
                yield cls(root)

    def pod(self, namespace: str, name: str, uid: str) -> Pod:
        """Start a pod as kubelet does, on a host with the cgroup driver `cgroupfs`."""
        logs = self._logs / f"{namespace}_{name}_{uid}"
        logs.mkdir()
        parent = f"/kubepods/besteffort/pod{uid}"
        config: Value = {1: {1: name, 2: uid, 3: namespace}, 3: str(logs), 8: {1: parent, 2: _HOST_NETWORK}}
        return Pod(self, self.call("RunPodSandbox", {1: config}), config)

    def link(self, pod: str, namespace: str, container: str, container_id: str) -> None:
        """Link the log of a container, as kubelet does once it has started."""
        (self._links / f"{pod}_{namespace}_{container}-{container_id}.log").symlink_to("log")

    def call(self, method: str, message: Value) -> str:
        """Return the first field of the answer, an id in those that have one."""
        data = _encoded(message)
        trailers = self.root / "trailers"
        command = ["curl", "--silent", "--show-error", "--http2-prior-knowledge", "--unix-socket", str(self.root / "containerd.sock")]
        headers = ["--header", "content-type: application/grpc", "--dump-header", str(trailers)]
        url = f"http://localhost/runtime.v1.RuntimeService/{method}"
        request = b"\0" + len(data).to_bytes(4, "big") + data
        done = subprocess.run(
            [*command, *headers, "--data-binary", "@-", url], input=request, capture_output=True, check=False, timeout=120
        )
        lines = trailers.read_text().splitlines() if trailers.exists() else []
        status = dict(line.split(": ", 1) for line in lines if line.startswith("grpc-"))
        if done.returncode or status.get("grpc-status") != "0":
            raise Unavailable(f"{method}: {status.get('grpc-message') or done.stderr.decode()}")
        return done.stdout[7:].decode()  # 5 bytes of gRPC, the number of the field, and its length


class Pod:
    """A pod that runs until the end of its containerd."""

    def __init__(self, containerd: Containerd, sandbox: str, config: Value) -> None:
        self._containerd = containerd
        self._sandbox = sandbox
        self._config = config

    def start(self, name: str, program: str, attempt: int = 0) -> str:
        """Start a program in a container, and return the container's id."""
        config: Value = {1: {1: name, 2: attempt}, 2: {1: IMAGE}, 3: f"/{program}", 11: f"{name}/{attempt}.log"}
        container = self._containerd.call("CreateContainer", {1: self._sandbox, 2: config, 3: self._config})
        self._containerd.call("StartContainer", {1: container})
        return container


def _encoded(value: Value) -> bytes:
    if isinstance(value, str):
        return value.encode()
    assert isinstance(value, Mapping)
    return b"".join(_field(number, each) for number, each in value.items())


def _field(number: int, value: Value) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = _encoded(value)
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    head, tail = number & 0x7F, number >> 7
    return bytes([head | 0x80]) + _varint(tail) if tail else bytes([head])
