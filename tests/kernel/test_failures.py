"""Failed forks, failed execs and OOM kills, as far as this kernel lets programs attach. tests/vm has exact numbers on quiet kernels."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from exporter.loaders import failures
from exporter.loaders.libbpf import Libbpf
from exporter.model import Outcome
from exporter.model.failures import FAILURES, FailedStarts, Failure, Kind
from exporter.records.record import Record
from exporter.sources.ebpf.source import EbpfSource
from tests.kernel import failing
from tests.kernel.programs import SLOW, Program, renewed, until, watching

TIMES = 3
STORMS: dict[str, Callable[[Path, Program], failing.Failed]] = {
    "execs": lambda folder, _: failing.execs(folder, TIMES),
    "compat_execs": lambda _, workload: failing.compat_execs(workload, TIMES),
    "rlimit": lambda *_: failing.forks_beyond_the_limit(TIMES),
    "pids.max": lambda *_: failing.forks_in_a_full_cgroup(TIMES),
    "no_init": lambda *_: failing.forks_without_init(TIMES),
    "clones": lambda *_: failing.contradictory_clones(TIMES),
    "oom": lambda *_: failing.oom_kills(TIMES),
}

counting = partial(watching, failed_starts=FailedStarts.AUTO)

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="only root can set these limits"), pytest.mark.usefixtures("requires_bpf")]


def attached(source: EbpfSource) -> set[Kind]:
    return {failure.kind for failure in source.peek().failures}


@pytest.fixture(scope="module")
def running() -> Iterator[EbpfSource]:
    with counting() as source:
        yield source


@pytest.mark.parametrize("name", STORMS)
def test_failures_are_counted(running: EbpfSource, name: str, tmp_path: Path, workload: Program) -> None:
    """At least those of the test: other processes of the machine may fail meanwhile."""
    source = renewed(running)
    known = attached(source)
    try:
        failed = STORMS[name](tmp_path, workload)
    except failing.Unavailable as reason:
        pytest.skip(str(reason))
    counts = source.peek().failures
    if not {failure.kind for failure in failed} <= known:
        pytest.skip(source.about())
    assert {failure: n for failure, n in failed.items() if counts[failure] < n} == {}


def test_records_tell_victims_of_the_oom_killer_from_others(workload: Program) -> None:
    """Both are killed by SIGKILL; only one of them needs more memory."""
    records: list[Record] = []
    with counting(SLOW) as source:
        source.publish(records.extend, live=True)
        try:
            failing.oom_kills(TIMES)
        except failing.Unavailable as reason:
            pytest.skip(str(reason))
        workload.storm("kill", TIMES, int(signal.SIGKILL))
        until(lambda: sum(each.comm == workload.comm for each in records), lambda n: n > TIMES)
    mine = [each for each in records if each.comm == workload.comm]
    victims = [each for each in records if each.oom_killed]
    assert sorted((each.code, each.oom_killed) for each in mine) == [(0, False), *[(9, False)] * TIMES]
    assert [(each.outcome, each.code) for each in victims if each.ppid == os.getpid()] == [(Outcome.SIGNAL, signal.SIGKILL)] * TIMES


def test_a_part_that_is_missing_has_its_reason() -> None:
    """`doctor` shows it; a part that is attached has all its series at 0 from the start."""
    with counting() as source:
        known, about = attached(source), source.about()
        assert set(source.peek().failures) == {failure for failure in FAILURES if failure.kind in known}
    assert about.count(" are not counted: ") == len(Kind) - len(known)


def test_the_mode_runs_without_the_object(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of it is needed to count processes."""
    monkeypatch.setattr(failures, "OBJECT", tmp_path / "missing.o")
    with counting() as source:
        assert source.peek().failures == {}
        assert source.about().count("the BPF object is not built") == len(Kind)


def test_an_object_that_is_not_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It fails in the library, and the mode runs all the same."""
    (tmp_path / "broken.o").write_text("not ELF")
    monkeypatch.setattr(failures, "OBJECT", tmp_path / "broken.o")
    with counting() as source:
        assert source.peek().failures == {}
        assert "OOM kills are not counted: bpf_object__open_file failed" in source.about()


def test_functions_are_chosen_by_what_the_kernel_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A needed function that is missing names itself; without an optional one nothing is missed; and an unsafe kernel gets no programs."""
    libbpf = Libbpf()
    missing, there = failures._Hook("first", ("no_such_function",)), failures._Hook("second", ("no_such_function", "kernel_clone"))

    def targets(*hooks: failures._Hook) -> failures._Targets:
        return failures._targets(libbpf, failures.OBJECT, hooks, FailedStarts.ALWAYS)

    if not libbpf.has_struct(failures._SAFE_DETACH):
        pytest.skip("this kernel cannot detach such programs safely")
    assert targets(missing._replace(optional=True), there) == {"second": "kernel_clone"}
    with pytest.raises(failures._Unattachable, match="does not describe no_such_function"):
        targets(there, missing)
    monkeypatch.setattr(failures, "_SAFE_DETACH", "no_such_struct")
    with pytest.raises(failures._Unattachable, match="cannot detach such a program safely"):
        targets(there)
    assert targets(*failures._PARTS[Kind.OOM_KILL]) == {"on_oom_kill": None}


def test_members_are_those_of_the_kernel() -> None:
    """The choice rests on members of structs, also on some that are in a struct or union without a name."""
    libbpf = Libbpf()
    assert libbpf.has_member("task_struct", "tgid")
    assert libbpf.has_member("page", "mapping")
    assert not libbpf.has_member("task_struct", "no_such_member")
    assert not libbpf.has_member("no_such_struct", "tgid")


def test_where_nothing_is_wanted_nothing_is_attached() -> None:
    """An operator can leave the functions of the kernel alone; OOM kills have a tracepoint of their own."""
    with watching(failed_starts=FailedStarts.NEVER) as source:
        assert attached(source) <= {Kind.OOM_KILL}
        assert source.about().count("detection.failed_starts is never") == 2


def test_a_switch_counts_each_failure_once() -> None:
    """A source counts from the moment that it is told, until another one counts; its last drain has the rest."""
    with counting(standby=True) as source:
        if Kind.OOM_KILL not in attached(source):
            pytest.skip(source.about())
        try:
            failing.oom_kills(1)
            assert source.peek().failures[Failure(Kind.OOM_KILL)] == 0
            source.count_from(0)
            failing.oom_kills(2)
            source.count_until(1)
            failing.oom_kills(1)
        except failing.Unavailable as reason:
            pytest.skip(str(reason))
        assert source.drain().failures[Failure(Kind.OOM_KILL)] == 2
        assert source.peek().failures[Failure(Kind.OOM_KILL)] == 0
