"""The examples of docs/prometheus.md: each is run by Prometheus 3, and brings what the page says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from bench.exporter import running
from bench.prometheus import THREE, Prometheus, prometheus
from tests.conftest import NO_THREE
from tests.e2e.fleet.scraped import until

PAGE = (Path(__file__).parents[2] / "docs/prometheus.md").read_text()
LIFETIMES, RUNTIMES = "shortproc_process_lifetime_seconds", "shortproc_process_runtime_seconds"
NATIVE = "Native histograms"


class Examples(NamedTuple):
    """Flags and configuration of a section."""

    flags: tuple[str, ...]
    config: dict[str, Any]


def examples(section: str) -> Examples:
    """As a reader would copy them."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    flags = [word for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for word in block.split() if word.startswith("--enable")]
    (config,) = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)] or [{}]
    return Examples(tuple(flags), config)


def configured(target: int, example: dict[str, Any], receiver: str) -> str:
    """A configuration with the settings of an example, that scrapes one exporter."""
    (job,) = example.get("scrape_configs", [{"job_name": "shortproc"}])
    assert job["job_name"] == "shortproc"
    jobs = [{**job, "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}]
    writes = [{**each, "url": f"{receiver}/api/v1/write"} for each in example.get("remote_write", [])]
    return json.dumps({"global": {"scrape_interval": "500ms", **example.get("global", {})}, "scrape_configs": jobs, "remote_write": writes})


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Prometheus]]:
    """All at once, of one exporter: each needs five seconds before it scrapes."""
    if THREE.program("prometheus") is None:
        pytest.skip(NO_THREE)
    settings, native = THREE.native()
    created, converted, remote = map(examples, ("Created timestamps", "Conversion of classic histograms", "Remote write 2.0"))
    with ExitStack() as stack, running("--mode=netlink") as exporter, ThreadPoolExecutor() as pool:
        receiving = prometheus(json.dumps({"global": settings}), *native, "--web.enable-remote-write-receiver", release=THREE)
        receiver = stack.enter_context(receiving)

        def starting(example: dict[str, Any], *flags: str) -> AbstractContextManager[Prometheus]:
            return prometheus(configured(exporter.port, example, receiver.url), *flags, release=THREE)

        both = ",".join((*created.flags, *(flag.partition("=")[2] for flag in native)))
        contexts = {
            "none": starting({}),
            "native": starting({"global": settings}, *native),
            "created": starting({}, *created.flags),
            "both": starting({"global": settings}, both),
            "converted": starting({"global": settings, **converted.config}, *native),
            "converted, not native": starting({"scrape_configs": [{"job_name": "shortproc", "convert_classic_histograms_to_nhcb": True}]}),
            "legacy": starting(examples("Names in UTF-8").config),
            "sender": starting({"global": settings, **remote.config}, *native),
        }
        yield dict(zip(contexts, pool.map(stack.enter_context, contexts.values()), strict=True)) | {"receiver": receiver}


def wait_for(server: Prometheus, query: str) -> None:
    """Until it has an answer that is not 0."""
    until(lambda: server.value(query) != 0, query)


def names(server: Prometheus) -> set[str]:
    """Names of the exporter's metrics."""
    wait_for(server, "shortproc_execs_total")
    found = server.call("/api/v1/label/__name__/values")
    assert isinstance(found, list)
    return {name for name in found if name.startswith(("shortproc_", "process_", "python_"))}


def test_native_histograms(servers: dict[str, Prometheus]) -> None:
    """By the flag of this version; both ways of the page are the ones that the benchmarks and tests use."""
    section = examples(NATIVE)
    assert ({}, section.flags) == THREE.native() or (section.config["global"], ()) == THREE.native()
    assert names(servers["native"]) - names(servers["none"]) == {LIFETIMES, "shortproc_comm_lifetime_seconds"}


@pytest.mark.parametrize("server", ["created", "both"])
def test_created_timestamps(servers: dict[str, Prometheus], server: str) -> None:
    """A counter that stood at more than 0 when it was first scraped is seen at 0 before; without the flag it is not."""
    first = "min_over_time(shortproc_forked_processes_total[10m])"
    for each in ("none", server):
        wait_for(servers[each], "shortproc_forked_processes_total")
    assert servers["none"].value(first) > 0
    assert servers[server].value(f"{first} == bool 0") == 1
    assert not {name for name in names(servers[server]) if name.endswith("_created")}
    assert (LIFETIMES in names(servers[server])) == (server == "both")


def test_conversion_keeps_classic_histograms(servers: dict[str, Prometheus]) -> None:
    """So that rules and dashboards have their data."""
    assert names(servers["converted"]) - names(servers["native"]) == {RUNTIMES, "shortproc_detection_latency_seconds"}
    assert f"{RUNTIMES}_bucket" in names(servers["converted"])
    assert servers["converted"].value(f"histogram_quantile(0.9, {RUNTIMES})") > 0


@pytest.mark.skipif(THREE.version() >= (3, 8), reason="this Prometheus takes native histograms without the flag")
def test_conversion_without_native_histograms_stores_neither(servers: dict[str, Prometheus]) -> None:
    """The trap of the page: nothing tells that the histogram is missing."""
    assert not {name for name in names(servers["converted, not native"]) if name.startswith(RUNTIMES)}
    assert servers["converted, not native"].value("up") == 1


def test_names_are_the_same_in_each_scheme(servers: dict[str, Prometheus]) -> None:
    """A change of the setting must rename nothing."""
    assert names(servers["legacy"]) == names(servers["none"])


def test_remote_write_carries_native_histograms(servers: dict[str, Prometheus]) -> None:
    """The receiver scrapes nothing itself."""
    sender, receiver = servers["sender"], servers["receiver"]
    wait_for(receiver, f"histogram_count({LIFETIMES})")
    assert names(receiver) == names(servers["native"])
    assert sender.metric("prometheus_remote_storage_samples_failed_total") == 0
