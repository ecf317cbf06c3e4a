"""Pods of a real containerd have their owners; the test plays kubelet. Skipped where containerd is missing, or no pod can run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from exporter.model.owner import Owner
from tests.kernel.container_runtimes import COUNT, Unavailable, names, owners_of
from tests.kernel.cri import Containerd
from tests.kernel.programs import SLOW, watching

_COMM = f"pod-{os.getpid()}"
_UID = "dde1244b-5bb5-4297-b544-85f3bc0d80b{}"


@pytest.fixture(scope="module")
def containerd(requires_bpf: None) -> Iterator[Containerd]:
    try:
        with Containerd.running(_COMM) as containerd:
            containerd.pod("shop", "probe", _UID.format(0)).start("app", _COMM)
            yield containerd
    except Unavailable as reason:
        pytest.skip(f"no pod of containerd can run here (apt-get install containerd runc curl): {reason}")


@pytest.mark.parametrize("logs", [True, False], ids=["logs", "state"])
def test_containers_that_live_for_milliseconds_have_their_owners(containerd: Containerd, *, logs: bool) -> None:
    """By the names of kubelet's logs, which stay; and by the state of containerd, which is removed when the container exits."""
    name = f"web-{int(logs)}"
    expected = Counter[Owner]()
    with watching(SLOW) as source, names(containerd.root, containerd.root if logs else None) as known:
        pod = containerd.pod("shop", name, _UID.format(1 + logs))
        for number in range(COUNT):
            container_id = pod.start(f"app-{number}", _COMM)
            containerd.link(name, "shop", f"app-{number}", container_id)
            expected[Owner("pod", "", "shop", name, f"app-{number}")] += 1
        assert owners_of(source, _COMM, known) == expected
