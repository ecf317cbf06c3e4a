"""Events of a known program on the real kernel: each once, with its facts; filtered in the kernel; lost ones counted by kind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import exporter
from exporter.config.options import Config, Detection, Filter, HandlerConfig
from exporter.kernel.attached import EVENT_PROGRAMS
from exporter.kernel.event_layout import EVENTS_BYTES
from exporter.library.inbox import EventInbox
from exporter.loaders.direct import Direct
from exporter.model import Mode, Outcome
from exporter.model.events import EventKind
from exporter.records.event import Event
from exporter.records.hub import Hub
from exporter.records.subscriptions import Subscription, wanted_events
from exporter.sources.ebpf.source import EbpfSource
from exporter.supervision.modes import loader_settings
from exporter.supervision.supervisor import Supervisor
from tests.kernel.programs import Program, until, watching
from tests.kernel.test_app import CHECKOUT, running
from tests.kernel.test_library import descriptors

FORK, EXEC, EXIT, SIGNAL = EventKind
ALL = tuple(EventKind)
N = 50
EVERYTHING = Filter()

pytestmark = pytest.mark.usefixtures("requires_bpf")


@contextmanager
def subscribed(
    kinds: Sequence[EventKind] = ALL,
    wanted: Filter = EVERYTHING,
    event_bytes: int = EVENTS_BYTES,
    *,
    force_guard: bool = False,
) -> Iterator[tuple[EbpfSource, list[Event]]]:
    """Watch with a subscription, and collect the events that come."""
    events: list[Event] = []
    how = wanted_events([Subscription(kinds, wanted)])
    with watching(wanted_events=how, event_bytes=event_bytes, force_guard=force_guard) as source:
        assert source.publish_events(events.extend) is None
        yield source, events


@pytest.mark.parametrize("force_guard", [False, True], ids=["group_dead", "guard"])
def test_the_life_of_a_program(nothing: Program, workload: Program, force_guard: bool) -> None:
    """Fork, exec and exit of each child once, though its threads exit together; with its parent, user, path and status."""
    me = os.getpid()
    with subscribed(force_guard=force_guard) as (_, events):
        before = time.time_ns()
        pid = nothing.start()
        os.waitpid(pid, 0)
        storm = workload.start("threads", N, 8)
        os.waitpid(storm, 0)
        until(lambda: [event for event in events if event.kind is EXIT and event.pid == storm], bool)
        after = time.time_ns()
    fork = next(event for event in events if event.child_pid == pid)
    assert (fork.kind, fork.pid, fork.uid) == (FORK, me, os.getuid())
    executed, exited = (event for event in events if event.pid == pid and event.kind is not SIGNAL)
    assert (executed.kind, executed.comm, executed.exe, executed.ppid) == (EXEC, nothing.comm, os.fsencode(nothing.path), me)
    assert (exited.kind, exited.outcome, exited.code, exited.exe, exited.mode) == (EXIT, Outcome.OK, 0, b"", Mode.EBPF_CORE)
    assert executed.parent_comm == exited.parent_comm == fork.comm == Path(f"/proc/{me}/comm").read_bytes().strip()
    assert exited.runtime_ns is not None
    assert before <= fork.at_ns <= executed.at_ns <= exited.at_ns <= after
    assert 0 < exited.runtime_ns <= after - before
    children = {event.child_pid for event in events if event.kind is FORK and event.pid == storm}
    exits = Counter(event.pid for event in events if event.kind is EXIT)
    assert len(children) == N
    assert {exits[child] for child in children if child is not None} == {1}


def test_a_signal_has_a_sender(nothing: Program) -> None:
    """Number, receiver and sender; the kernel's own have none; what is ignored or merged is no event."""
    with subscribed() as (_, events), subprocess.Popen(["sleep", "60"]) as sleeper:
        until(lambda: [event for event in events if event.pid == sleeper.pid and event.exe], bool)
        sleeper.send_signal(signal.SIGURG)  # ignored by default
        sleeper.send_signal(signal.SIGTERM)
        sleeper.wait()
        until(lambda: [event for event in events if event.pid == sleeper.pid and event.kind is EXIT], bool)
        with subprocess.Popen(["sh", "-c", "kill -SEGV $$"]) as shell:
            shell.wait()
        until(lambda: [event for event in events if event.pid == shell.pid and event.kind is EXIT], bool)
    mine = [event for event in events if event.pid == sleeper.pid and event.kind in (SIGNAL, EXIT)]
    assert [(event.kind, event.code) for event in mine] == [(SIGNAL, signal.SIGTERM), (EXIT, signal.SIGTERM)]
    assert (mine[0].sender_pid, mine[0].comm, mine[0].uid, mine[0].outcome) == (os.getpid(), b"sleep", os.getuid(), None)
    assert mine[0].sender_comm == Path(f"/proc/{os.getpid()}/comm").read_bytes().strip()
    assert mine[1].outcome is Outcome.SIGNAL
    own = next(event for event in events if event.pid == shell.pid and event.kind is SIGNAL and event.code == signal.SIGSEGV)
    assert (own.sender_pid, own.sender_comm) == (shell.pid, b"sh")


def test_the_kernel_filters(nothing: Program, workload: Program) -> None:
    """What no filter allows is not even counted as sent: a busy host would wake the reader for nothing."""
    with subscribed((EXEC, EXIT), Filter(comm=(nothing.comm.decode(),), ppid=(os.getpid(),))) as (source, events):
        for program in (nothing, workload, nothing):
            program.run("forkexec", 3, nothing.path)
        until(lambda: len(events), lambda n: n >= 4)
        sent = source.peek().events
    assert sent == {EXEC: 2, EXIT: 2}
    assert [(event.kind, event.comm) for event in events] == [(EXEC, nothing.comm), (EXIT, nothing.comm)] * 2


def test_only_wanted_kinds_are_attached(nothing: Program) -> None:
    """Each program costs at each event, whoever it is for; without a subscription there are neither programs nor maps."""
    with subscribed((EXIT,)) as (source, events):
        assert set(source._kernel.links) & set(EVENT_PROGRAMS) == {"send_exit"}
        nothing.run()
        until(lambda: len(events), bool)
        assert set(source.peek().events) == {EXIT}
    assert {event.kind for event in events} == {EXIT}
    with watching() as source:
        assert not set(source._kernel.links) & set(EVENT_PROGRAMS)
        assert not {"events", "event_counts"} & set(source._kernel.maps)
        assert source.publish_events(events.extend) == "only the mode ebpf_core tells events"
        assert source.peek().events == {}


def test_what_finds_no_room_is_counted_by_kind(workload: Program, nothing: Program) -> None:
    """A ring of 4 KiB, which nobody reads: what came and what was dropped is what happened."""
    how = wanted_events([Subscription((EXEC, EXIT), Filter(comm=(nothing.comm.decode(),)))])
    events: list[Event] = []
    with watching(wanted_events=how, event_bytes=4096) as source:
        for _ in range(N):
            nothing.run()
        counts = source.peek()
        assert source.publish_events(events.extend) is None
        until(lambda: len(events), lambda n: n == sum(counts.events.values()))
        drained = source.drain()
        assert source.peek().events_dropped[EXEC, "full"] == 0
    came = Counter(event.kind for event in events)
    for kind in (EXEC, EXIT):
        assert drained.events[kind] == counts.events[kind] == came[kind]
        assert counts.events[kind] + counts.events_dropped[kind, "full"] == N
        assert counts.events_dropped[kind, "full"] > 0
        assert counts.events_dropped[kind, "missed"] == 0


def test_a_switch_sends_each_event_once(nothing: Program) -> None:
    """The old programs send until a moment, the new ones from then on."""
    how = wanted_events([Subscription((EXEC,), Filter(comm=(nothing.comm.decode(),)))])
    events: list[Event] = []
    with watching(wanted_events=how, standby=True) as source:
        source.publish_events(events.extend)
        nothing.run()
        source.count_from(0)
        nothing.run()
        source.count_until(1)
        nothing.run()
        until(lambda: len(events), bool)
    assert len(events) == 1


def test_an_object_that_is_not_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Processes are counted all the same, and the reason is told."""
    monkeypatch.setattr("exporter.loaders.events.OBJECT", tmp_path / "missing.o")
    how = wanted_events([Subscription((EXEC,), Filter())])
    with watching(wanted_events=how) as source:
        assert "the BPF object is not built" in str(source.publish_events(lambda _: None))
    (tmp_path / "missing.o").write_text("not ELF")
    with watching(wanted_events=how) as source:
        assert "bpf_object__open_file failed" in str(source.publish_events(lambda _: None))


def test_from_a_program(nothing: Program) -> None:
    """Events beside records, and nothing stays behind; a mode that has none is refused."""
    before = descriptors()
    with exporter.watch("ebpf_core", events=["exec", "exit"], only=Filter(comm=(nothing.comm.decode(),))) as processes:
        for _ in range(N):
            nothing.run()
        events = []
        for event in processes.events.within(60):
            events.append(event)
            if len(events) == 2 * N:
                break
        assert sum(processes.events.dropped.values()) == 0
    assert processes.pop()[0][0].comm == nothing.comm
    assert Counter(event.kind for event in events) == {EXEC: N, EXIT: N}
    with pytest.raises(exporter.ModeUnavailable, match="mode scan is active, but there are no events: only the mode ebpf_core"):
        exporter.watch("scan", events=["exec"]).__enter__()
    assert descriptors() == before


HANDLER = """
from exporter.handlers import Handler

class Quiet(Handler):
    def handle_events(self, batch): pass
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
def test_of_the_exporter(nothing: Program) -> None:
    """The broker loads the programs, the serving process reads the ring without privileges, and the handler gets what its filter allows."""
    with tempfile.TemporaryDirectory(prefix="shortproc-test-", dir="/var/tmp") as name:  # not tmp_path: others must reach it
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "quiet.py").write_text(HANDLER)
        handler = {"name": "quiet:Quiet", "path": [name], "records": False, "events": ["exec"], "filter": {"comm": [nothing.comm.decode()]}}
        (config := folder / "exporter.yml").write_text(json.dumps({"handlers": [handler]}))
        with running("--mode=ebpf_core", f"--config.file={config}") as each:
            for _ in range(N):
                nothing.run()
            handled = "shortproc_handler_events_total", frozenset({("handler", "quiet:Quiet")})
            samples = until(each.samples, lambda found: found[handled] >= N)
            pid = each.child.pid
            ids = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:"))
    assert samples[handled] == N
    assert samples["shortproc_events_total", frozenset({("kind", "exec")})] == N
    assert sum(value for (family, _), value in samples.items() if family == "shortproc_events_dropped_total") == 0
    assert "0" not in ids.split()


def test_a_mode_without_events_says_so(tmp_path: Path) -> None:
    """In the log when it becomes active, and in `doctor`: the handler waits for something that never comes."""
    handler = HandlerConfig("a:B", events=("exec",))
    supervisor = Supervisor(Config(detection=Detection(mode="scan"), handlers=(handler,)), hub := Hub(0), Direct(loader_settings(Config())))
    hub.events.attach(EventInbox(lambda _: True))
    supervisor.start()
    assert supervisor.no_events == "only the mode ebpf_core tells events"
    supervisor.stop()
    (tmp_path / "a.py").write_text("class B: pass")
    (file := tmp_path / "exporter.yml").write_text(json.dumps({"handlers": [{"name": "a:B", "path": [str(tmp_path)], "events": ["exec"]}]}))
    command = [sys.executable, "-m", "exporter", "doctor", f"--config.file={file}"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=False).stdout
    told = {line.split()[0] for line in said.splitlines() if "handlers get no events: only the mode ebpf_core tells events" in line}
    usable = {line.split()[0] for line in said.splitlines() if line.split()[1:2] == ["usable"]}
    assert told == usable - {"ebpf_core"}
    assert "scan" in told
