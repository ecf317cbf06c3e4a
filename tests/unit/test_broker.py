"""The process that keeps the privileges, where it is slow, or has much to say."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from exporter.config.options import Config, Detection, EbpfBcc, Metrics
from exporter.loaders.base import Settings
from exporter.loaders.broker import Broker, _fitting, _Lines, serve
from exporter.loaders.handover import MAX_MESSAGE, receive
from exporter.model import Mode, ModeUnavailable
from exporter.model.owner import ContainerName
from exporter.supervision.modes import loader_settings


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


def test_what_is_short_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could start it again: the privileges would be gone for good."""

    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("exporter.loaders.direct.Direct.probe", refuse)
    monkeypatch.setattr(logging, "getLogger", partial(logging.getLogger, "the broker's own"))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(5)
    thread = threading.Thread(target=serve, args=(theirs, loader_settings(Config())))
    thread.start()
    with ours:
        for _ in range(2):
            ours.send(json.dumps({"load": "netlink", "probe": True}).encode())
            assert "too many open files" in json.loads(ours.recv(65536))["unavailable"]
    thread.join(5)


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


def test_names_of_containers_fit_into_a_message() -> None:
    """Names are long, and a cut answer would be lost; the others are asked for again."""
    names = {f"{number:064x}": ContainerName("\ud800" * 255, "\ud800" * 255, "\ud800" * 255) for number in range(32)}
    fitting = _fitting(names)
    assert 0 < len(fitting) < len(names)
    assert len(json.dumps({"containers": fitting}).encode()) < MAX_MESSAGE


@pytest.mark.parametrize("wanted", [5, {}, "abc", [[]], None])
def test_a_request_that_makes_no_sense_is_answered(wanted: object) -> None:
    """Whatever the other side sends, the broker must continue."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(5)
    thread = threading.Thread(target=serve, args=(theirs, loader_settings(Config())))
    thread.start()
    with ours:
        ours.send(json.dumps({"containers": wanted}).encode())
        assert json.loads(ours.recv(65536)).keys() & {"containers", "unavailable"}
    thread.join(5)
