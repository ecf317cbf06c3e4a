"""Containers of a real Docker have their owners. Skipped where Docker, runc or a static C library are missing, or containers cannot run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from exporter.model.owner import Owner
from tests.kernel.container_runtimes import COUNT, Docker, Unavailable, names, owners_of
from tests.kernel.programs import SLOW, watching

_COMM = f"docked-{os.getpid()}"
_UID = "dde1244b-5bb5-4297-b544-85f3bc0d80bf"
_POD = f"--cgroup-parent=/kubepods/besteffort/pod{_UID}"
_SWARM = "--label=com.docker.swarm.service.name=shop-web"


@pytest.fixture(scope="module")
def docker(requires_bpf: None) -> Iterator[Docker]:
    try:
        with Docker.running(_COMM) as docker:
            docker.run("probe", program=_COMM)
            yield docker
    except Unavailable as reason:
        pytest.skip(f"no container of Docker can run here (apt-get install docker.io): {reason}")


@pytest.mark.parametrize("options", [(), ("--rm",)], ids=["kept", "removed"])
def test_containers_that_live_for_milliseconds_have_their_owners(docker: Docker, options: tuple[str, ...]) -> None:
    """By name; tasks of swarm by their service; those of cri-dockerd by pod, with the names and the cgroup that it and kubelet choose."""
    expected = Counter[Owner]()
    with watching(SLOW) as source, names(docker.root) as known:
        for number in range(COUNT):
            attempt = f"{len(options)}{number}"
            docker.run(f"web-{attempt}", *options, program=_COMM)
            docker.run(f"shop-web.{attempt}.k8xq0n5w2v7l3d9y1r4t6p0sz", *options, _SWARM, program=_COMM)
            docker.run(f"k8s_app-{number}_web-0_shop_{_UID}_{attempt}", *options, _POD, program=_COMM)
            expected[Owner("container", container=f"web-{attempt}")] += 1
            expected[Owner("container", container="shop-web")] += 1
            expected[Owner("pod", "", "shop", "web-0", f"app-{number}")] += 1
        assert owners_of(source, _COMM, known) == expected
