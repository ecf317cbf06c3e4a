"""Where the programs can't be loaded, one sentence says what to do about it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from exporter.kernel.attached import LATER_COPIES
from exporter.kernel.bpf import map_memory
from exporter.kernel.layout import BUCKETS
from exporter.loaders import core, handover
from exporter.loaders.core import load_core
from exporter.model import NS, ModeUnavailable, RuntimeScale
from tests.kernel.programs import descriptors

SCALE = RuntimeScale(NS, (NS,))
CHECKOUT = Path(core.__file__).parents[2]


def test_the_object_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A source checkout, or a wheel that was built without clang."""
    monkeypatch.setattr(core, "OBJECT", tmp_path / "missing.o")
    with pytest.raises(ModeUnavailable, match=r"the BPF object is not built: install clang .* then run `make all`"):
        load_core(SCALE, lambda line: None)
    assert "not built" in (core.refusal() or "")


def test_the_object_is_not_one(requires_bpf: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A sentence for a person; what libbpf has to say goes to the log."""
    (tmp_path / "broken.o").write_text("not ELF")
    monkeypatch.setattr(core, "OBJECT", tmp_path / "broken.o")
    log: list[str] = []
    with pytest.raises(ModeUnavailable, match=r"bpf_object__open_file failed"):
        load_core(SCALE, log.append)
    assert any("libbpf" in line for line in log)


def test_the_verifier_refuses(requires_bpf: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its log is many lines, so it goes to the debug log, and the sentence says so."""
    whole = core.OBJECT.read_bytes()
    helper = b"\x85\x00\x00\x00\x01\x00\x00\x00"  # call 1, bpf_map_lookup_elem
    assert helper in whole
    (tmp_path / "refused.o").write_bytes(whole.replace(helper, b"\x85\x00\x00\x00\x10\x27\x00\x00"))
    monkeypatch.setattr(core, "OBJECT", tmp_path / "refused.o")
    log: list[str] = []
    with pytest.raises(ModeUnavailable, match=r"bpf_object__load failed .*--log\.level=debug"):
        load_core(SCALE, log.append)
    assert any("invalid func" in line for line in log)


def test_without_capabilities(requires_bpf: None, nobody: int) -> None:
    """The usual case: somebody who is not root."""
    code = """
from exporter.loaders.core import load_core, refusal
from exporter.model import RuntimeScale, ModeUnavailable
try:
    load_core(RuntimeScale(1, (1,)), print)
except ModeUnavailable as reason:
    assert str(reason) == refusal(), refusal()
    print(reason)
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=CHECKOUT, user=nobody, group=nobody, extra_groups=[], capture_output=True, text=True, check=False)
    assert result.stderr == ""
    assert result.stdout == "loading eBPF programs needs CAP_BPF and CAP_PERFMON: run as root, or grant both\n"


def test_the_loader_hangs() -> None:
    """It is killed, and nothing of it stays."""
    before = descriptors()
    with pytest.raises(ModeUnavailable, match=r"did not answer within 0\.001 s"):
        load_core(SCALE, lambda line: None, timeout=0.001)
    assert children() == []
    assert descriptors() == before


def children() -> list[str]:
    """Children of this process; psutil would stumble over a process of others that is just exiting."""
    return [pid for each in Path("/proc/self/task").iterdir() for pid in (each / "children").read_text().split()]


def test_the_loader_dies() -> None:
    """Its status is told, and its last words go to the log."""
    log: list[str] = []
    with pytest.raises(ModeUnavailable, match=r"the loader exited with status 1 before it had finished"):
        handover.load("this_module_is_not_there", {}, timeout=10, on_log=log.append)
    assert any("ModuleNotFoundError" in line for line in log)


def test_what_is_not_needed_costs_nothing(requires_bpf: None) -> None:
    """Most kernels need neither the guard nor further copies of on_exit; there their maps have one entry."""
    sizes, programs = {}, {}
    for forced in (False, True):
        scale = RuntimeScale(NS, tuple(range(1, BUCKETS)))
        given = load_core(scale, lambda line: None, force_guard=forced, several_copies=forced)
        try:
            sizes[forced] = {name: map_memory(given.maps[name].fd) for name in ("guard", "exit_marks", "cpus")}
            programs[forced] = set(given.programs)
        finally:
            given.close()
    assert programs[True] - programs[False] == set(LATER_COPIES)
    assert sizes[False]["exit_marks"] < sizes[True]["exit_marks"] / 10
    assert sizes[False]["cpus"] < sizes[True]["cpus"]
    if sizes[False]["guard"] == sizes[True]["guard"]:
        pytest.skip("this kernel's sched_process_exit does not say which thread is the last one")
    assert sizes[False]["guard"] < sizes[True]["guard"] / 10
