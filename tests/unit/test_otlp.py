"""The sink `otlp` against a receiver built on the official definitions: what is sent, and that each record is accepted or counted."""

from __future__ import annotations

import os
import pkgutil
import socket
import ssl
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra `otlp` is not installed")

import opentelemetry.semconv.attributes as stable
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.semconv._incubating import attributes as incubating

from bench.otlp_receiver import Receiver, Reply
from exporter.handlers import otlp as module
from exporter.handlers.backlog import BATCH, Backlog
from exporter.handlers.otlp import Otlp
from exporter.model import Outcome, comm_text
from exporter.records.attributes import attributes
from exporter.records.fields import keys_of
from exporter.records.record import FIELDS
from tests.unit import certificates
from tests.unit.handler_child import eventually, record
from tests.unit.test_sinks import HOSTILE

Make = Callable[..., Otlp]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def make(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes sinks that retry soon; closes them in the end."""
    monkeypatch.setattr(module, "_SHORTEST_PAUSE_SECONDS", 0.02)
    made: list[Otlp] = []

    def make(**changes: Any) -> Otlp:
        options: dict[str, Any] = {
            "endpoint": receiver.url,
            "headers_file": "",
            "ca_file": "",
            "compression": "gzip",
            "timeout_seconds": 0.5,
        }
        made.append(Otlp(**options | changes))
        return made[-1]

    yield make
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.0)
    for each in made:
        each.close()


def settled(sink: Otlp) -> bool:
    """Send what there is. Returns whether nothing waits any more."""
    sink.tick()
    return sink.tally.pending == 0


def plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return [plain(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, str(kind))


def sent(found: LogRecord) -> dict[str, Any]:
    return {each.key: plain(each.value) for each in found.attributes}


def test_what_users_query(make: Make, receiver: Receiver) -> None:
    """Dashboards are written against these names, which are spelled out here and in no other test."""
    more: dict[str, Any] = {"arguments": b"cc1\0-O2", "arguments_cut": False, "lineage": (b"systemd", b"make"), "oom_killed": True}
    sink = make()
    sink.handle([record(7, ended_ns=1_700_000_000_000_000_001, outcome=Outcome.SIGNAL, code=9, **more)])
    eventually(lambda: settled(sink))
    (found,) = receiver.records
    assert sent(found) == {
        "process.exit.time": "2023-11-14T22:13:20.000000001Z",
        "process.creation.time": "2023-11-14T22:13:19.998000001Z",
        "shortproc.runtime_seconds": 0.002,
        "process.pid": 7,
        "process.parent_pid": 1,
        "process.real_user.id": 1000,
        "process.command": "cc1",
        "shortproc.parent_comm": "make",
        "process.executable.path": "/usr/bin/cc1",
        "shortproc.outcome": "signal",
        "shortproc.signal": "SIGKILL",
        "shortproc.cpu_seconds": 0.0015,
        "process.linux.cgroup": "/user.slice",
        "shortproc.mode": "ebpf_core",
        "shortproc.spawner": "runner",
        "process.real_user.name": "ci",
        "shortproc.owner_kind": "pod",
        "k8s.namespace.name": "shop",
        "k8s.pod.name": "cart-0",
        "container.name": "web",
        "shortproc.oom_killed": True,
        "process.command_args": ["cc1", "-O2"],
        "shortproc.arguments_cut": False,
        "shortproc.lineage": ["systemd", "make"],
    }
    assert (found.time_unix_nano, found.severity_text, found.severity_number) == (1_700_000_000_000_000_001, "ERROR", 17)
    assert (found.body.string_value, found.event_name) == ("cc1: OOMKilled after 2.000 ms", "shortproc.exit")
    (request,) = receiver.requests
    (logs,) = request.message.resource_logs
    resource = {each.key: plain(each.value) for each in logs.resource.attributes}
    assert {"service.name": "shortproc-exporter", "host.name": socket.gethostname()}.items() <= resource.items()
    assert (request.path, request.headers["content-encoding"]) == ("/v1/logs", "gzip")


@pytest.mark.parametrize(
    ("outcome", "severity"), [(Outcome.OK, "INFO"), (Outcome.ERROR, "WARN"), (Outcome.SIGNAL, "WARN"), (Outcome.UNKNOWN, "INFO")]
)
def test_severities(make: Make, receiver: Receiver, outcome: Outcome, severity: str) -> None:
    """Whoever looks for failures filters by it."""
    sink = make()
    sink.handle([record(outcome=outcome, code=None)])
    eventually(lambda: settled(sink))
    assert receiver.records[0].severity_text == severity


def test_names_are_those_of_the_semantic_conventions() -> None:
    """A name that only looks like one of theirs would not be found by tools that know them."""
    known: set[object] = set()
    for package in (stable, incubating):
        for each in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            known |= {value for value in vars(import_module(each.name)).values() if isinstance(value, str)}
    names = [key.attribute for field in FIELDS for key in keys_of(field)]
    assert len(set(names)) == len(names)
    assert [name for name in names if not name.startswith("shortproc.") and name not in known] == []


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(make: Make, receiver: Receiver, name: bytes) -> None:
    """Whoever names a process must not forge lines in a log viewer, or make a request that cannot be encoded."""
    sink = make()
    sink.handle([record(comm=name, exe=name, cgroup=name, arguments=name)])
    eventually(lambda: settled(sink))
    (found,) = receiver.records
    assert sent(found)["process.command"] == comm_text(name)
    assert found.body.string_value.isprintable()
    assert all(text.isprintable() for text in sent(found).values() if isinstance(text, str))


def test_texts_have_a_bound() -> None:
    """A path of a cgroup may have any length."""
    assert len(attributes(record(cgroup=b"\n" * 10_000))["process.linux.cgroup"]) == 4096


def test_batches_and_order(make: Make, receiver: Receiver) -> None:
    """A storm is sent in large requests without waiting for the next tick, and each record once."""
    sink = make()
    for at in range(0, 2000, 100):
        sink.handle([record(at + each) for each in range(100)])
    eventually(lambda: len(receiver.requests) == 4)
    eventually(lambda: settled(sink))
    assert [sent(each)["process.pid"] for each in receiver.records] == list(range(2000))
    assert (sink.tally.handled, sink.tally.lost, sink.tally.errors) == (2000, 0, 0)


def test_a_receiver_that_is_away(make: Make, receiver: Receiver) -> None:
    """It is restarted, or the network is gone: everything waits, and comes once it is back."""
    receiver.close()
    sink = make()
    sink.handle([record(number) for number in range(1200)])
    eventually(lambda: settled(sink) or sink.tally.errors >= 2)
    assert (sink.tally.handled, sink.tally.lost, sink.tally.pending) == (0, 0, 1200)
    back = Receiver(receiver.port)
    eventually(lambda: settled(sink))
    assert [sent(each)["process.pid"] for each in back.records] == list(range(1200))
    assert (sink.tally.handled, sink.tally.lost) == (1200, 0)
    back.close()


def test_a_receiver_that_is_busy(make: Make, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says when it can be asked again; asking earlier makes its trouble worse."""
    monkeypatch.setattr(module, "_LONGEST_PAUSE_SECONDS", 0.02)
    waits: list[float] = []
    sink = make()
    wait_for = sink._changed.wait_for

    def noted(predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        if timeout is not None:
            waits.append(timeout)
        return wait_for(predicate, timeout and 0)

    monkeypatch.setattr(sink._changed, "wait_for", noted)
    receiver.replies += [
        Reply(503, {"Retry-After": "7"}),
        Reply(429, {"Retry-After": "99999"}),
        Reply(502),
        Reply(504, {"Retry-After": "x"}),
    ]
    sink.handle([record()])
    eventually(lambda: settled(sink))
    assert waits[:2] == [7, 300]
    assert all(seconds < 1 for seconds in waits[2:])
    assert (len(receiver.records), sink.tally.handled, sink.tally.lost, sink.tally.errors) == (1, 1, 0, 4)


REFUSALS = {
    "its data is refused": (Reply(400), 3),
    "its token is refused": (Reply(401), 3),
    "a proxy sends it elsewhere": (Reply(307, {"Location": "/elsewhere"}), 3),
    "a server failed": (Reply(500), 3),
    "some are refused": (Reply(rejected=2), 2),
    "more than were sent": (Reply(rejected=2**40), 3),
    "none are refused": (Reply(), 0),
    "it speaks JSON": (Reply(body=b'{"partialSuccess":{}}'), 0),
    "it never stops": (Reply(body=b"x" * 300_000), 0),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused_is_counted(make: Make, receiver: Receiver, name: str) -> None:
    """The SDK takes a redirect for a success, and ignores partial ones: records would be lost in silence."""
    reply, lost = REFUSALS[name]
    receiver.replies.append(reply)
    sink = make()
    sink.handle([record(number) for number in range(3)])
    eventually(lambda: settled(sink))
    assert (sink.tally.handled, sink.tally.lost, sink.tally.errors) == (3 - lost, lost, int(lost > 0))
    sink.handle([record(9)])
    eventually(lambda: settled(sink))
    assert sent(receiver.records[-1])["process.pid"] == 9


def test_a_silent_receiver_delays_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers and other sinks share the main thread, and the exporter waits 10 s for all of them when it stops."""
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sink = make(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=600)
        sink.handle([record(number) for number in range(1300)])
        connection, _ = silent.accept()
        for _ in range(3):
            sink.tick()
        assert (sink.tally.pending, sink.tally.lost) == (1300, 0)
        sink.close()
        assert (sink.tally.pending, sink.tally.lost, sink.tally.handled) == (0, 1300, 0)
        connection.close()


def test_closing_sends_the_rest(make: Make, receiver: Receiver) -> None:
    """Also what is less than a batch."""
    sink = make()
    sink.handle([record(number) for number in range(700)])
    sink.close()
    assert (len(receiver.records), sink.tally.handled, sink.tally.lost) == (700, 700, 0)


def test_closing_without_a_receiver(make: Make, receiver: Receiver) -> None:
    """One try; what cannot be sent is counted."""
    receiver.close()
    sink = make()
    sink.handle([record(number) for number in range(1300)])
    sink.close()
    assert (sink.tally.pending, sink.tally.handled, sink.tally.lost) == (0, 0, 1300)
    assert not sink._thread.is_alive()


def test_an_error_of_ours_does_not_end_it(make: Make, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that ends takes all later records with it."""
    sink = make()
    monkeypatch.setattr(sink._client._exporter, "export", lambda _: 1 / 0)
    sink.handle([record()])
    eventually(lambda: settled(sink))
    monkeypatch.undo()
    sink.handle([record()])
    eventually(lambda: settled(sink))
    assert (sink.tally.handled, sink.tally.lost, sink.tally.errors) == (1, 1, 1)


def test_the_backlog_has_a_bound() -> None:
    """An outage of days must not fill the memory; the oldest go, and are counted."""
    backlog = Backlog(most_bytes=60_000)
    lost = 0
    for at in range(0, 20_000, 250):
        lost += backlog.add([record(at + each, comm=os.urandom(8)) for each in range(250)])
    assert lost > 0
    assert lost % BATCH == 0
    assert len(backlog) + lost == 20_000
    assert [each.pid for each in backlog.pop()] == list(range(lost, lost + BATCH))
    left = len(backlog)
    assert (backlog.clear(), len(backlog), backlog.ready) == (left, 0, False)


def test_records_come_back_as_they_were() -> None:
    """All fields, whatever they are."""
    backlog = Backlog()
    records = [record(1, comm=name, oom_killed=True, arguments=b"a\0b", lineage=(b"x", name)) for name in HOSTILE]
    backlog.add(records)
    backlog.seal()
    assert backlog.pop() == records


def test_headers(make: Make, receiver: Receiver, tmp_path: Path) -> None:
    """A token is in a file of the user's own, and may be replaced at any time."""
    file = tmp_path / "headers"
    file.write_text("# for the gateway\nAuthorization: Bearer one\n\nX-Scope-OrgID: shop\n")
    file.chmod(0o600)
    sink = make(headers_file=str(file))
    sink.handle([record()])
    eventually(lambda: settled(sink))
    assert {"authorization": "Bearer one", "x-scope-orgid": "shop"}.items() <= receiver.requests[0].headers.items()
    file.write_text("Authorization: Bearer two, longer\n")
    sink.handle([record()])
    eventually(lambda: settled(sink))
    assert receiver.requests[1].headers["authorization"] == "Bearer two, longer"
    assert "x-scope-orgid" not in receiver.requests[1].headers


UNFIT = {
    "others can read it": ("A: b", 0o604),
    "others can write it": ("A: b", 0o622),
    "it has no headers": ("no header", 0o600),
    "it has control characters": ("A: b\x7f", 0o600),
    "it is too large": ("A: b\n" * 9999, 0o600),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_file_of_headers_that_is_refused(
    make: Make, receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """What others can read is no secret; nothing is sent without the token, and nothing of the file is logged."""
    text, mode = UNFIT[name]
    file = tmp_path / "headers"
    file.write_text(text)
    file.chmod(mode)
    sink = make(headers_file=str(file))
    sink.handle([record()])
    eventually(lambda: settled(sink) or sink.tally.errors >= 2)
    assert (sink.tally.pending, receiver.requests) == (1, [])
    assert "A: b" not in str([vars(each) for each in caplog.records])
    file.write_text("A: c")
    file.chmod(0o600)
    eventually(lambda: settled(sink))
    assert receiver.requests[0].headers["a"] == "c"


def test_certificates_are_checked(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """A receiver that cannot prove who it is gets nothing."""
    pair = certificates.server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    secure = Receiver(tls=context)
    try:
        refused, trusting = (
            make(endpoint=f"https://127.0.0.1:{secure.port}"),
            make(endpoint=f"https://127.0.0.1:{secure.port}", ca_file=str(pair.cert)),
        )
        for sink in (refused, trusting):
            sink.handle([record()])
        eventually(lambda: settled(trusting) and (settled(refused) or refused.tally.errors >= 1))
        assert (len(secure.requests), refused.tally.handled, refused.tally.pending) == (1, 0, 1)
        assert "CERTIFICATE_VERIFY_FAILED" in str([vars(each) for each in caplog.records])
    finally:
        secure.close()


def test_nothing_comes_from_the_environment(make: Make, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A proxy of somebody's shell would get all records, and a password of ~/.netrc would go to the receiver."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password secret\n")
    for name, value in {"http_proxy": "http://127.0.0.1:9", "HOME": str(tmp_path), "REQUESTS_CA_BUNDLE": "/no/such"}.items():
        monkeypatch.setenv(name, value)
    sink = make()
    sink.handle([record()])
    eventually(lambda: settled(sink))
    assert "authorization" not in receiver.requests[0].headers


def test_a_long_outage_is_one_line_a_minute(make: Make, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """The SDK logs each retry of each batch, with text of the receiver."""
    receiver.close()
    sink = make()
    sink.handle([record()])
    eventually(lambda: settled(sink) or sink.tally.errors >= 3)
    (line,) = caplog.records
    assert vars(line)["fields"]["reason"] == "ConnectionRefusedError: [Errno 111] Connection refused"
