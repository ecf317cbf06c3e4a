"""What the serving process may still do once it serves, and what stands in for it: read from the kernel, not believed."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial
from operator import eq
from pathlib import Path

import psutil
import pytest

from bench.exporter import free_port
from exporter.config.options import Config
from exporter.kernel.bpf import BpfMap
from exporter.kernel.capabilities import CAP_BPF
from exporter.kernel.netlink_sockets import Sockets
from exporter.kernel.proc_connector import open_socket
from exporter.loaders.broker import Broker
from exporter.model import Mode, ModeUnavailable
from exporter.supervision.modes import loader_settings
from tests.folders import public
from tests.kernel.programs import Program, until
from tests.kernel.test_app import CHECKOUT, Running, _mode, command, refused, running

pytestmark = [pytest.mark.usefixtures("requires_bpf"), pytest.mark.commands]

NONE = "0" * 16


@pytest.fixture
def root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root has something to give up")


def states(pid: int) -> list[dict[str, str]]:
    """What the kernel says of each thread."""
    texts = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a connection's thread that has just ended
            texts.append((task / "status").read_text())
    return [dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line) for text in texts]


def broker_of(exporter: Running) -> psutil.Process | None:
    children = psutil.Process(exporter.child.pid).children()
    return next((each for each in children if "exporter.loaders.broker_process" in each.cmdline()), None)


def powerless(pid: int, uid: int) -> None:
    for state in states(pid):
        assert {state[each] for each in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {NONE}
        assert state["NoNewPrivs"] == "1"
        assert set(state["Uid"].split()) == {str(uid)}
        assert set(state["Groups"].split()) <= {str(uid)}


def events_come() -> bool:
    """Whether the kernel makes process events: who belongs to their group gets them, once anybody has subscribed."""
    with open_socket() as sock:
        subprocess.run(["true"], check=True)
        return bool(select.select([sock], [], [], 0.2)[0])


def test_it_serves_without_any(root: None, workload: Program, tmp_path: Path) -> None:
    """Every thread, in every mode; and it still climbs, through the process that kept them."""
    public(tmp_path)
    config = tmp_path / "exporter.yml"
    config.write_text("metrics: {new_series_hold_seconds: 0, max_comms: 1000}\nsecurity: {user: '12345'}\n")
    with running("--config.file", str(config)) as exporter:
        powerless(exporter.child.pid, 12345)
        broker = broker_of(exporter)
        assert broker is not None
        for mode in ("netlink", "ebpf_bcc", "fast_scan", "scan", "ebpf_core"):
            config.write_text(f"detection: {{mode: {mode}}}\n")
            exporter.child.send_signal(signal.SIGHUP)
            assert until(lambda: _mode(exporter.samples()), partial(eq, mode)) == mode
            powerless(exporter.child.pid, 12345)
        ended = "shortproc_ended_processes_total", frozenset({("outcome", "ok")})
        before = exporter.samples()[ended]
        workload.storm("end", 50, 0)
        assert until(lambda: exporter.samples()[ended] - before, lambda n: n >= 51) >= 51
        exporter.child.kill()
        exporter.child.wait()
        assert not until(broker.is_running, lambda there: not there), "it ends with whom it stands in for"


def test_taskstats_without_the_capability(root: None, nothing: Program, workload: Program) -> None:
    """Sockets that only the privileged may open are handed over, and tell all names."""
    with running("--mode=netlink", "--config.file", os.devnull) as exporter:
        powerless(exporter.child.pid, 65534)
        before = exporter.samples()["shortproc_detection_lost_total", frozenset({("reason", "name_race")})]
        workload.storm("forkexec", 300, nothing.path)
        ended = "shortproc_ended_processes_total", frozenset({("outcome", "ok")})
        after = until(exporter.samples, lambda samples: samples[ended] >= 301)
        assert after[ended] >= 301
        assert after["shortproc_detection_lost_total", frozenset({("reason", "name_race")})] == before


def test_capabilities_alone_are_given_up_too(root: None, nobody: int | None) -> None:
    """As a service manager starts it: an ordinary user with two ambient capabilities."""
    if not shutil.which("setpriv") or nobody is None:
        pytest.skip("setpriv (util-linux) is not installed")
    port = free_port()
    capable = ["setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups"]
    capable += ["--inh-caps=-all,+bpf,+perfmon", "--ambient-caps=-all,+bpf,+perfmon"]
    with subprocess.Popen([*capable, *command(port)], cwd=CHECKOUT, stderr=subprocess.PIPE, text=True) as child:
        exporter = Running(child, port)
        try:
            assert until(exporter.ready, bool)
            assert _mode(exporter.samples()) == "ebpf_core"
            powerless(child.pid, nobody)
        finally:
            child.kill()


def test_an_older_kernel_leaves_it_exactly_one(root: None) -> None:
    """Only the privileged read maps before 5.19: there it keeps CAP_BPF, every thread, and reads with it."""
    port = free_port()
    older = "import os; u = os.uname(); os.uname = lambda: os.uname_result((u[0], u[1], '5.15.0', u[3], u[4]))"
    whole = [sys.executable, "-c", f"{older}; from exporter.__main__ import main; main()", *command(port, "--mode=ebpf_core")[3:]]
    with subprocess.Popen(whole, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True) as child:
        exporter = Running(child, port)
        try:
            assert until(exporter.ready, bool)
            for state in states(child.pid):
                assert int(state["CapEff"], 16) == int(state["CapPrm"], 16) == 1 << CAP_BPF
                assert {state["CapInh"], state["CapAmb"]} == {NONE}
                assert (state["NoNewPrivs"], "0" in state["Uid"].split()) == ("1", False)
            assert _mode(exporter.samples()) == "ebpf_core"
        finally:
            child.kill()


def test_they_are_kept_if_that_is_wanted(root: None, tmp_path: Path) -> None:
    """For who must read what only root may."""
    config = tmp_path / "exporter.yml"
    config.write_text("security: {drop_privileges: false}\n")
    with running("--mode=scan", "--config.file", str(config)) as exporter:
        assert all(state["CapEff"] != NONE for state in states(exporter.child.pid))
        assert broker_of(exporter) is None


@pytest.mark.parametrize(("user", "why"), [("no-such-user-here", "there is no user"), ("root", "is root")])
def test_a_user_that_can_not_be(root: None, tmp_path: Path, user: str, why: str) -> None:
    """Status 2, one line, and the key."""
    config = tmp_path / "exporter.yml"
    config.write_text(f"security: {{user: {user}}}\n")
    status, said = refused("--config.file", str(config))
    assert status == 2
    assert said.count("\n") == 1
    assert f"security.user: {user!r}" in said or f"security.user: {why}" in said


@pytest.mark.parametrize("confined", [["setpriv", "--bounding-set=-all,+bpf,+perfmon"], ["unshare", "--user", "--map-root-user"]])
def test_a_root_that_may_not_change(root: None, confined: list[str]) -> None:
    """That of a container that was given too little says what to give it, and does not serve as root."""
    whole = [*confined, *command(free_port(), "--mode=scan", "--config.file", os.devnull)]
    result = subprocess.run(whole, cwd=CHECKOUT, capture_output=True, text=True, timeout=30, check=False)
    if result.returncode == 1:
        pytest.skip(f"{confined[0]} can't do that here: {result.stderr.strip()}")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "security.user: cannot switch to user 65534 (operation not permitted): grant CAP_SETUID" in result.stderr


def test_without_its_broker_it_goes_on(root: None, tmp_path: Path) -> None:
    """A loader process that was killed costs the climb, and nothing else; the page says so."""
    public(tmp_path)
    config = tmp_path / "exporter.yml"
    config.write_text("")
    with running("--config.file", str(config)) as exporter:
        broker = broker_of(exporter)
        assert broker is not None
        broker.kill()
        config.write_text("detection: {mode: ebpf_bcc}\n")
        exporter.child.send_signal(signal.SIGHUP)
        failed = "shortproc_exporter_config_last_reload_successful", frozenset[tuple[str, str]]()
        assert until(exporter.samples, lambda samples: samples[failed] == 0)[failed] == 0
        assert _mode(exporter.samples()) == "ebpf_core"


def test_a_configuration_of_root_alone_is_warned_of(root: None, tmp_path: Path) -> None:
    """It is read at start, and fails at the first SIGHUP: the log says both, the second with all problems of a file on one line."""
    public(tmp_path)
    config = tmp_path / "exporter.yml"
    config.write_text("")
    config.chmod(0o600)
    with running("--mode=scan", "--config.file", str(config)) as exporter:
        failed = "shortproc_exporter_config_last_reload_successful", frozenset[tuple[str, str]]()
        exporter.child.send_signal(signal.SIGHUP)
        assert until(exporter.samples, lambda samples: samples[failed] == 0)[failed] == 0
        config.chmod(0o644)
        config.write_text("log: {level: loud}\nmetrics: {max_comms: 0}\n")
        exporter.child.send_signal(signal.SIGHUP)
        lines = [next(line for line in exporter.child.stderr or () if wanted in line) for wanted in ("cannot read", "cannot be", "loud")]
    assert f"user 65534 cannot read {config}, so a reload will fail: chgrp" in lines[0]
    assert f"{config}: cannot be read: permission denied" in lines[1]
    assert f"{config}: log.level: 'loud' is not one of" in lines[2]
    assert f"; {config}: metrics.max_comms: 0 is not an integer" in lines[2]


def test_it_answers_again_and_again() -> None:
    """Descriptors do not pile up in it, nor here."""
    broker = Broker(loader_settings(Config()))
    try:
        before = len(list(Path(f"/proc/{broker.pid}/fd").iterdir()))
        for _ in range(3):
            handover = broker.load(Mode.EBPF_CORE)
            assert isinstance(handover.maps["control"], BpfMap)
            handover.close()
            sockets = Sockets.from_handover(broker.load(Mode.NETLINK))
            sockets.subscription.close()
            if sockets.registration is not None:
                sockets.registration.close()
        broker.probe(Mode.EBPF_CORE)
        assert until(lambda: len(list(Path(f"/proc/{broker.pid}/fd").iterdir())), lambda n: n <= before) <= before
    finally:
        broker.close()
    with pytest.raises(ModeUnavailable, match="the broker"):
        broker.probe(Mode.EBPF_CORE)


def test_what_is_let_go_is_unsubscribed(root: None) -> None:
    """By the process that has the privileges, through its own copy of the socket: the kernel then makes no more events for it."""
    broker = Broker(loader_settings(Config()))
    handover = broker.load(Mode.NETLINK)
    os.close(handover.links.pop("events_lease"))
    try:
        with socket.socket(fileno=os.dup(handover.links["events"])) as events:
            assert not until(lambda: _event_comes(events), lambda comes: not comes), "what came before that has been read by now"
    finally:
        handover.close()
        broker.close()


def _event_comes(events: socket.socket) -> bool:
    subprocess.run(["true"], check=True)
    comes = bool(select.select([events], [], [], 0.2)[0])
    with contextlib.suppress(BlockingIOError):
        while comes:
            events.recv(4096, socket.MSG_DONTWAIT)
    return comes


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_kernel_makes_events_for_nobody_after_it(root: None, how: signal.Signals) -> None:
    """However it ends, and without privileges, its subscription ends with it: what nobody listens to costs every fork."""
    if events_come():
        pytest.skip("somebody else listens to process events here")
    with running("--mode=netlink", "--config.file", os.devnull) as exporter:
        powerless(exporter.child.pid, 65534)
        assert events_come()
        exporter.child.send_signal(how)
        exporter.child.wait(10)
        assert not until(events_come, lambda come: not come)
