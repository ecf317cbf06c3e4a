"""The process that keeps the privileges, where it is slow, has much to say, or is told nonsense."""

from __future__ import annotations

import _socket
import json
import logging
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from exporter.config.options import Config, Detection, EbpfBcc, Metrics
from exporter.kernel.inotify import Inotify
from exporter.loaders.base import Settings
from exporter.loaders.broker import Broker
from exporter.loaders.broker_process import ANSWERED, BrokerProcess
from exporter.loaders.broker_worker import _Lines
from exporter.loaders.container_state import ContainerState
from exporter.loaders.handover import BOOT, MAX_MESSAGE, receive
from exporter.model import Mode, ModeUnavailable
from exporter.model.owner import ContainerName
from exporter.supervision.modes import loader_settings

ROOT = Path(__file__).parents[2]
IN_CLOSE_NOWRITE = 0x10


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    monkeypatch.setattr("exporter.loaders.broker._ANSWER_SECONDS", 5)
    broker = Broker(loader_settings(Config()))
    yield broker
    broker.close()


def test_an_answer_that_comes_late_is_not_taken_for_the_next(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each mode would get what another one had asked for, from then on."""
    with pytest.raises(ModeUnavailable, match=r"^scan has no loader"):
        broker.load(Mode.SCAN)
    os.kill(broker.pid, signal.SIGSTOP)
    monkeypatch.setattr("exporter.loaders.broker._ANSWER_SECONDS", 0.2)
    monkeypatch.setattr("exporter.loaders.broker._LATE_SECONDS", 0.2)
    for _ in range(2):
        with pytest.raises(ModeUnavailable, match="did not answer within"):
            broker.load(Mode.SCAN)
    os.kill(broker.pid, signal.SIGCONT)
    monkeypatch.setattr("exporter.loaders.broker._ANSWER_SECONDS", 5)
    monkeypatch.setattr("exporter.loaders.broker._LATE_SECONDS", 5)
    with pytest.raises(ModeUnavailable, match=r"^fast_scan has no loader"):
        broker.load(Mode.FAST_SCAN)


def test_an_answer_that_found_no_room_is_done_with(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it again once there are descriptors."""

    def cut(ours: socket.socket, seconds: float) -> None:
        receive(ours, seconds)
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as short:
        short.setattr("exporter.loaders.broker.receive", cut)
        with pytest.raises(ModeUnavailable, match="open files"):
            broker.load(Mode.SCAN)
    with pytest.raises(ModeUnavailable, match=r"^fast_scan has no loader"):
        broker.load(Mode.FAST_SCAN)


def test_settings_arrive_as_they_were() -> None:
    """All of them, whatever fields there are: the programs must bucket as the serving process reads."""
    metrics = Metrics(runtime_buckets_seconds=(0.001, 1), per_comm_histogram=True)
    config = Config(procfs="/host/proc", metrics=metrics, detection=Detection(ebpf_bcc=EbpfBcc("/usr/bin/python3")))
    settings = loader_settings(config)
    assert Settings.from_json(settings.to_json()) == settings


def test_a_log_fits_into_a_message() -> None:
    """Whatever a verifier or a compiler wrote: spelled in JSON, a character may be six."""
    log = _Lines()
    for _ in range(100):
        log.emit(logging.LogRecord("a", logging.DEBUG, "a", 1, "\ufffd" * 1000, None, None))
    assert len(json.dumps(log.capped())) < MAX_MESSAGE
    assert log.capped()


@contextmanager
def asked(modes: Sequence[str], worker: Sequence[str], root: str = "") -> Iterator[socket.socket]:
    """A broker in a thread, whose children are of this command; gives the socket of the serving process. `root` has state of containers."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(10)
    process = BrokerProcess(_socket.socket(fileno=theirs.detach()), modes, worker, root)
    thread = threading.Thread(target=process.run)
    thread.start()
    with ours:
        yield ours
    thread.join(5)


def said(ours: socket.socket, request: bytes) -> str:
    ours.send(request)
    answer = json.loads(ours.recv(MAX_MESSAGE))
    assert answer["log"] == []
    return str(answer.get("unavailable") or answer)


def test_what_is_short_does_not_end_it(broker: Broker) -> None:
    """Nobody could start it again: the privileges would be gone for good."""
    with pytest.raises(ModeUnavailable, match=r"^scan has no loader"):  # it has started
        broker.probe(Mode.SCAN)
    soft, hard = resource.prlimit(broker.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (3, hard))
    for _ in range(2):
        with pytest.raises(ModeUnavailable, match=r"^the broker cannot load it now: too many open files"):
            broker.probe(Mode.NETLINK)
        assert broker.container_names(["ab" * 32]) == {}
    resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (soft, hard))
    with pytest.raises(ModeUnavailable, match=r"^scan has no loader"):
        broker.probe(Mode.SCAN)


@pytest.mark.parametrize(("worker", "answer"), [("/bin/false", "the loader exited before it had answered"), ("/no/such", "shortage")])
def test_each_request_is_answered_once(monkeypatch: pytest.MonkeyPatch, worker: str, answer: str) -> None:
    """Even if its child crashes or cannot be started. Else the answers of later requests would be taken for those of earlier ones."""
    monkeypatch.setattr("sys.executable", worker)
    with asked(["netlink"], [worker]) as ours:
        for verb in (b"load", b"probe"):
            assert answer in said(ours, verb + b" netlink")
        assert said(ours, b"load scan") == "scan has no loader"


def test_a_child_is_started_for_known_modes_only() -> None:
    """Nothing else that the serving process chooses may become an argument of a command with privileges."""
    with asked(["netlink"], ["/no/such"]) as ours:
        for request in (
            b"load",
            b"load netlink netlink",
            b"exec netlink",
            b"load ../x",
            b'load "',
            b"\xff\0",
            b" ",
            b"{}",
            b"load \xc3\xa9",
        ):
            assert said(ours, request) == "the broker does not understand the request"
        assert said(ours, b"load ebpf_core") == "ebpf_core has no loader"


def test_it_tells_names_of_containers(broker: Broker) -> None:
    """Only root can read them; between these answers, others must find theirs."""
    assert broker.container_names(["ab" * 32, "../../etc/shadow"]) == {}
    with pytest.raises(ModeUnavailable, match=r"^scan has no loader"):
        broker.load(Mode.SCAN)
    assert broker.container_names([]) == {}


def test_names_of_containers_do_not_wait_for_a_mode(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading may take a minute; names can be asked for again."""
    monkeypatch.setattr("exporter.loaders.broker._NAMES_WAIT_SECONDS", 0.01)
    with broker._lock:
        assert broker.container_names(["ab" * 32]) == {}
    os.kill(broker.pid, signal.SIGSTOP)
    monkeypatch.setattr("exporter.loaders.broker._NAMES_SECONDS", 0.1)
    assert broker.container_names(["ab" * 32]) == {}
    os.kill(broker.pid, signal.SIGCONT)
    with pytest.raises(ModeUnavailable, match=r"^scan has no loader"):
        broker.load(Mode.SCAN)


def test_a_child_whose_serving_process_has_exited_ends_quietly() -> None:
    """The exporter may be told to stop while a mode is loaded: no traceback, and the broker goes on to its end."""
    settings = loader_settings(Config()).to_json()
    (ours, theirs), (broker, of_child) = (socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2))
    with theirs, broker, of_child:
        ours.close()
        numbers = theirs.fileno(), of_child.fileno()
        command = [
            sys.executable,
            "-I",
            "-c",
            BOOT,
            str(ROOT),
            "exporter.loaders.broker_worker",
            settings,
            *map(str, numbers),
            "load",
            "scan",
        ]
        assert subprocess.run(command, pass_fds=numbers, capture_output=True, check=True).stderr == b""
        assert broker.recv(100) == ANSWERED


def test_names_of_containers_fit_into_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are long, and a cut answer would be lost; the others are asked for again."""
    names = {f"{number:064x}": ContainerName("\ud800" * 255, "\ud800" * 255, "\ud800" * 255) for number in range(32)}
    monkeypatch.setattr(ContainerState, "names", lambda *_: names)
    answer = ContainerState().answer(names)
    assert len(answer) < MAX_MESSAGE
    assert 0 < len(json.loads(answer)["containers"]) < len(names)


@pytest.mark.parametrize("wanted", [b"", b" 5", b" ../../etc/shadow", b" \xff\0", b" " + b"x" * 4000])
def test_names_of_what_is_no_container_are_not_told(wanted: bytes) -> None:
    """Whatever the other side sends, the broker must continue."""
    with asked([], []) as ours:
        assert said(ours, b"containers" + wanted) == "{'log': [], 'containers': {}}"


def test_names_of_containers_are_read_as_they_are_written(tmp_path: Path) -> None:
    """When somebody asks, the state of a container of `docker run --rm` is gone."""
    folder = tmp_path / "var/lib/docker/containers"
    folder.mkdir(parents=True)
    with asked([], [], str(tmp_path)) as ours, closing(Inotify()) as reads:
        assert said(ours, b"containers") == "{'log': [], 'containers': {}}"
        container = folder / ("ab" * 32)
        container.mkdir()
        reads.watch(str(container), IN_CLOSE_NOWRITE)
        (container / "new").write_text('{"Name": "/web"}')
        (container / "new").rename(container / "config.v2.json")
        assert select.select([reads.fd], [], [], 10)[0]
        shutil.rmtree(folder)
        assert said(ours, b"containers " + b"ab" * 32) == "{'log': [], 'containers': {'%s': [None, None, 'web']}}" % ("ab" * 32)


def test_the_process_of_the_broker_stays_small() -> None:
    """It lives as long as the exporter. Each of these modules would bring many others."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import exporter.loaders.broker_process; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", code, str(ROOT)]
    modules = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert not {"re", "enum", "json", "typing", "socket", "signal", "logging", "collections"} & set(modules)
    assert [each for each in modules if each.startswith("exporter.")] == ["exporter.loaders", "exporter.loaders.broker_process"]
