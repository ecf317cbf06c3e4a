"""Arguments of real processes in their records: exact, whatever they are, and those that the kernel was given."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from exporter.config.options import Records
from exporter.kernel.bpf import map_memory
from exporter.kernel.procfs import Procfs
from exporter.model import ModeUnavailable
from exporter.model.arguments import MOST_BYTES
from exporter.records.arguments import reducer
from exporter.records.hub import Hub
from exporter.records.record import Record
from exporter.sources.ebpf.source import EbpfSource
from exporter.sources.netlink.source import NetlinkSource
from exporter.sources.scan.slow import ScanSource
from tests.folders import public
from tests.kernel.programs import SCALE, Program, ended, renewed, until, watching
from tests.kernel.test_app import running

_REWRITES = """
fields = open("/proc/self/stat").read().rpartition(")")[2].split()
start, end = int(fields[45]), int(fields[46])
with open("/proc/self/mem", "r+b", buffering=0) as memory:
    memory.seek(start)
    memory.write(b"harmless\\0".ljust(end - start, b"\\0"))
assert open("/proc/self/cmdline").read().startswith("harmless")
"""


@pytest.fixture(scope="module")
def attached(requires_bpf: None) -> Iterator[EbpfSource]:
    with watching(arguments=True) as source:
        yield source


@pytest.fixture
def core(attached: EbpfSource) -> EbpfSource:
    return renewed(attached)


def run(path: str | Path, *arguments: bytes) -> int:
    """Run it with exactly these arguments, its own name included; returns the PID."""
    pid = os.posix_spawn(path, arguments, os.environ)
    assert ended(pid).status == 0
    return pid


def told(source: EbpfSource, runs: Sequence[tuple[str | Path, *tuple[bytes, ...]]]) -> dict[tuple[bytes, ...], Record]:
    """Return the record of each run, by its arguments."""
    records: list[Record] = []
    source.publish(records.extend, live=True)
    pids = {run(*each): each[1:] for each in runs}
    until(lambda: {each.pid for each in records}, lambda seen: seen >= pids.keys())
    return {pids[each.pid]: each for each in records if each.pid in pids and each.ppid == os.getpid()}


def test_a_storm_of_different_arguments(core: EbpfSource, nothing: Program) -> None:
    """Each record has its own, to the byte."""
    runs = [(nothing.path, b"run", b"%d" % number, b"x" * (number % 60)) for number in range(300)]
    found = told(core, runs)
    assert len(found) == 300
    assert {words: (record.arguments, record.arguments_cut) for words, record in found.items()} == {
        words: (b"\0".join(words), False) for _, *rest in runs for words in [tuple(rest)]
    }


@pytest.mark.parametrize(
    "words",
    [
        (b"x", b"", b""),
        (b"two\nlines\x1b[2J", b"\t"),
        (b"\xff\xfe", "ü".encode()),
        (b"x" * (MOST_BYTES - 1),),
    ],
    ids=["empty", "control characters", "not UTF-8", "just fits"],
)
def test_odd_arguments(core: EbpfSource, nothing: Program, words: tuple[bytes, ...]) -> None:
    """Any bytes but zero are allowed, and there may be none."""
    record = told(core, [(nothing.path, *words)])[words]
    assert (record.arguments, record.arguments_cut) == (b"\0".join(words), False)


def test_a_process_without_even_a_name(core: EbpfSource, nothing: Program) -> None:
    """Since Linux 5.18 the kernel gives it an empty one."""
    records: list[Record] = []
    core.publish(records.extend, live=True)
    if not (pid := os.fork()):
        ctypes.CDLL(None).execv(os.fsencode(nothing.path), (ctypes.c_char_p * 1)(None))
        os._exit(99)
    assert ended(pid).status == 0
    (record,) = until(lambda: [each for each in records if each.pid == pid], bool)
    assert record.arguments in {b"", None}


@pytest.mark.parametrize("words", [(b"x", b"y" * (100 << 10)), (b"x" * MOST_BYTES,), (b"x" * (MOST_BYTES - 1), b"y")])
def test_long_arguments_are_cut_and_say_so(core: EbpfSource, nothing: Program, words: tuple[bytes, ...]) -> None:
    """Also where the cut is between two of them."""
    record = told(core, [(nothing.path, *words)])[words]
    assert (record.arguments, record.arguments_cut) == ((b"\0".join(words) + b"\0")[:MOST_BYTES].removesuffix(b"\0"), True)


def test_a_process_can_not_rewrite_them(core: EbpfSource) -> None:
    """`ps` shows what it wrote; the record has what was executed."""
    words = (b"python3", b"-c", _REWRITES.encode())
    arguments = told(core, [(sys.executable, *words)])[words].arguments
    assert arguments is not None
    assert arguments.startswith(b"python3\0-c\0\nfields = ")


def test_a_script_has_its_interpreter(core: EbpfSource, tmp_path: Path) -> None:
    """As `ps` shows it."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh -e\n")
    script.chmod(0o755)
    assert told(core, [(script, b"name", b"1")])[b"name", b"1"].arguments == b"\0".join((b"/bin/sh", b"-e", os.fsencode(script), b"1"))


def test_a_process_without_an_exec_has_none(core: EbpfSource, workload: Program) -> None:
    """They would be its parent's."""
    records: list[Record] = []
    core.publish(records.extend, live=True)
    workload.storm("end", 5, 3)
    mine = until(lambda: [each for each in records if each.comm == workload.comm], lambda mine: len(mine) > 5)
    assert sorted(each.arguments or b"" for each in mine) == [b""] * 5 + [b"\0".join((os.fsencode(workload.path), b"end", b"5", b"3"))]


def test_unless_asked_for_they_are_neither_read_nor_kept(requires_bpf: None, nothing: Program) -> None:
    """The map that would hold them has one page."""
    with watching() as source:
        assert told(source, [(nothing.path, b"x")])[(b"x",)].arguments is None
        assert map_memory(source._map("arguments").fd) <= 8192


def test_secrets_do_not_get_past_the_hub(core: EbpfSource, nothing: Program) -> None:
    """Whoever consumes records gets them from there."""
    hub = Hub(1000, reducer(Records(arguments="full", redact=("*pin",))))
    core.publish(hub.publish, live=True)
    pid = run(nothing.path, b"x", b"--pin=1", b"--password", b"two", b"three")
    (record,) = until(lambda: [each for each in hub.recent() if each.pid == pid], bool)
    assert record.arguments == b"x\0--pin=REDACTED\0--password\0REDACTED\0three"


def test_the_exporter_reads_them_without_privileges(requires_bpf: None, nothing: Program, tmp_path: Path) -> None:
    """The broker loads the programs; the API has them, reduced as the configuration says."""
    config = tmp_path / "exporter.yml"
    config.write_text("records: {arguments: names}\n")
    public(tmp_path)
    with running("--mode=ebpf_core", "--config.file", str(config)) as exporter:
        run(nothing.path, b"deploy", b"--to=prod", b"-v", b"now")
        query = f"/api/v1/short-processes?comm={nothing.comm.decode()}"
        answer = until(lambda: json.loads(exporter.get(query)[1]), lambda answer: bool(answer["short_processes"]))
    (record,) = answer["short_processes"]
    assert (record["arguments"], record["arguments_cut"]) == (["deploy", "--to", "-v"], False)


def test_netlink_reads_those_of_processes_that_live_long_enough() -> None:
    """And of others it has none, rather than those of their parents."""
    procfs = Procfs()
    source = NetlinkSource(SCALE, procfs, arguments=True)
    try:
        source.start()
    except ModeUnavailable as error:
        pytest.skip(str(error))
    records: list[Record] = []
    source.publish(records.extend, live=True)
    pid = run("/bin/sleep", b"sleep", b"0.2")
    (record,) = until(lambda: [each for each in records if each.pid == pid], bool)
    source.stop()
    procfs.close()
    assert (record.arguments, record.arguments_cut) == (b"sleep\x000.2", False)


def test_scans_read_them_at_a_look() -> None:
    """As `ps` does."""
    procfs = Procfs()
    source = ScanSource(SCALE, procfs, 100_000_000, arguments=True)
    source.start()
    records: list[Record] = []
    source.publish(records.extend, live=True)
    pid = run("/bin/sleep", b"sleep", b"0.4")
    (record,) = until(lambda: [each for each in records if each.pid == pid], bool)
    source.stop()
    procfs.close()
    assert (record.arguments, record.arguments_cut) == (b"sleep\x000.4", False)
