"""The sink `otlp` in the real child: beside other sinks, killed, and sending to an OpenTelemetry collector that is not ours."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra `otlp` is not installed")

from bench.exporter import free_port
from bench.otlp_receiver import Receiver
from exporter.config.options import JsonlOptions, OtlpOptions, Sinks
from exporter.handlers import plan
from exporter.handlers.plan import Planned
from exporter.model import comm_text
from tests.unit.handler_child import eventually, lines, of, record, running
from tests.unit.sink_files import private
from tests.unit.test_otlp import sent

STRANGE = b"a\n\xff\xc3\xbc"

Collector = Callable[[Receiver, Path], AbstractContextManager[str]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def planned(url: str, jsonl: str = "") -> tuple[Planned, ...]:
    """As the configuration says it."""
    return tuple(plan._sinks(Sinks(JsonlOptions(path=jsonl), otlp=OtlpOptions(endpoint=url))))


@contextmanager
def opentelemetry_collector(to: Receiver, folder: Path) -> Iterator[str]:
    """Run the OpenTelemetry Collector, which passes what it gets to our receiver. Yields its URL."""
    program = os.environ.get("OTELCOL") or shutil.which("otelcol") or shutil.which("otelcol-contrib")
    if program is None:
        pytest.skip("no OpenTelemetry Collector: OTELCOL does not name one, and there is no otelcol or otelcol-contrib")
    port = free_port()
    config = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}},
        "exporters": {"otlphttp": {"endpoint": to.url}},
        "service": {"pipelines": {"logs": {"receivers": ["otlp"], "exporters": ["otlphttp"]}}, "telemetry": {"metrics": {"level": "none"}}},
    }
    (file := folder / "collector.yml").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log, subprocess.Popen([program, f"--config={file}"], stderr=log) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@contextmanager
def rotel(to: Receiver, folder: Path) -> Iterator[str]:
    """The same with Rotel, a collector in Rust."""
    spec = importlib.util.find_spec("rotel")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package rotel, an OpenTelemetry collector, has no build for this machine")
    http, grpc = free_port(), free_port()
    command = [str(Path(spec.submodule_search_locations[0]) / "rotel-agent"), "start"]
    options = {
        "pid-file": folder / "pid",
        "log-file": folder / "log",
        "otlp-http-endpoint": f"127.0.0.1:{http}",
        "otlp-grpc-endpoint": f"127.0.0.1:{grpc}",
        "exporter": "otlp",
        "otlp-exporter-endpoint": to.url,
        "otlp-exporter-protocol": "http",
    }
    with subprocess.Popen([*command, *(f"--{key}={value}" for key, value in options.items())], stdout=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{http}"
        finally:
            process.terminate()


@pytest.mark.parametrize("collector", [opentelemetry_collector, rotel])
def test_a_collector_takes_them(collector: Collector, receiver: Receiver, tmp_path: Path) -> None:
    """Our receiver and the SDK share their definitions; these collectors are written in other languages by others."""
    records = [record(number, comm=STRANGE, lineage=(b"init", STRANGE)) for number in range(1200)]
    with collector(receiver, tmp_path) as url, running(*planned(url)) as handlers:
        handlers.offer(records)
        eventually(lambda: len(receiver.records) == 1200)
        eventually(lambda: of(handlers, "otlp").handled == 1200)
    found = {sent(each)["process.pid"]: sent(each) for each in receiver.records}
    assert found.keys() == set(range(1200))
    assert found[7]["process.command"] == comm_text(STRANGE)
    assert found[7]["shortproc.lineage"] == ["init", comm_text(STRANGE)]
    assert {each.event_name for each in receiver.records} == {"shortproc.exit"}
    resource = receiver.requests[0].message.resource_logs[0].resource
    assert "shortproc-exporter" in {each.value.string_value for each in resource.attributes}


def test_a_receiver_that_is_away_is_nothing_to_others(receiver: Receiver, tmp_path: Path) -> None:
    """Records are in the file at once, the exporter drops none, and they are sent when the receiver is back."""
    receiver.close()
    with private(tmp_path) as folder, running(*planned(receiver.url, str(folder / "records.jsonl"))) as handlers:
        for at in range(0, 5000, 500):
            handlers.offer([record(at + each) for each in range(500)])
        eventually(lambda: len(lines(folder / "records.jsonl")) == 5000)
        back = Receiver(receiver.port)
        eventually(lambda: of(handlers, "otlp").handled == 5000)
        assert {sent(each)["process.pid"] for each in back.records} == set(range(5000))
        assert (of(handlers, "otlp").lost, sum(handlers.dropped().values()), handlers.status().restarts) == (0, 0, 0)
        back.close()


def test_a_child_that_is_killed_loses_what_it_had_and_says_so(receiver: Receiver) -> None:
    """It is the first that the kernel kills when memory is short; records that waited in it are gone."""
    receiver.close()
    with running(*planned(receiver.url)) as handlers:
        handlers.offer([record(number) for number in range(500)])
        eventually(lambda: handlers._read_page().tallies[0].pending == 500)
        assert handlers._child is not None
        os.kill(handlers._child.pid, signal.SIGKILL)
        eventually(lambda: of(handlers, "otlp").lost == 500)
        back = Receiver(receiver.port)
        handlers.offer([record(7)])
        eventually(lambda: of(handlers, "otlp").handled == 1)
        assert [sent(each)["process.pid"] for each in back.records] == [7]
        back.close()
    assert of(handlers, "otlp").lost == 500
