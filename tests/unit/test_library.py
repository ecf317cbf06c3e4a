"""The Python API, where no process has to be observed for it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

import exporter
from exporter.library import api, inbox
from exporter.library.inbox import RecordInbox
from exporter.library.scraped import totals
from tests.unit.given_records import Given
from tests.unit.snoop_records import ERROR, OK, SIGNAL, TYPICAL, UNKNOWN

METRICS = Path(__file__).parents[1] / "fixtures" / "metrics.txt"


def test_what_nobody_pops_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that stops reading must not cost memory without end, and what is missing is told."""
    monkeypatch.setattr(inbox, "_MOST_WAITING", 3)
    each = RecordInbox(keep=2)
    for number in (2, 2, 1):
        each.offer([TYPICAL] * number)
    assert each.dropped() == {"slow": 2}
    assert each.pop_all() == ([TYPICAL] * 3, True)
    assert each.pop_all() == ([], True)
    each.close()
    assert each.pop_all() == ([], False)
    assert len(each.recent()) == 2
    each.release()


def test_records_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a file are never dropped; closing ends the wait."""
    monkeypatch.setattr(inbox, "_MOST_WAITING", 3)
    each, put = RecordInbox(), list[bool]()
    thread = threading.Thread(target=lambda: put.extend(each.put([TYPICAL] * 2) for _ in range(4)))
    thread.start()
    popped = 0
    while popped < 4:
        popped += len(each.pop_all()[0])
    each.close()
    thread.join()
    assert (put[:2], put[-1], each.dropped()["slow"]) == ([True, True], False, 0)
    each.release()


def test_iteration_recent_and_filter() -> None:
    """Each record once by iteration, the last ones again and again; a filter is for both."""
    good, bad = TYPICAL._replace(pid=1), TYPICAL._replace(pid=2, comm=b"x")
    with Given([good, bad], [good], wanted=exporter.Filter(comm=("true",)), keep=10) as processes:
        assert list(processes) == [good, good]
        assert list(processes) == []
        assert processes.recent() == [good, good]
        assert processes.recent(1) == [good]
        assert processes.recent(0) == []
    assert processes.recent() == [good, good]


def test_iteration_ends() -> None:
    """After its time, or by `stop` of another thread, or with the reason why nothing more comes."""
    with Given([TYPICAL], ends=False) as processes:
        assert list(processes.within(0.01)) == [TYPICAL]
        threading.Timer(0.01, processes.stop).start()
        assert list(processes) == []
        processes.failure = "it is gone"
        with pytest.raises(exporter.Ended, match="it is gone"):
            list(processes)


def test_totals_of_metrics() -> None:
    """The golden /metrics, read back."""
    found = totals(METRICS.read_text())
    assert found.exits == {OK: 45, ERROR: 3, SIGNAL: 2, UNKNOWN: 0}
    assert (found.failed, found.mode) == (5, exporter.Mode.EBPF_CORE)
    assert found.cpu_ns > found.short_cpu_ns > 0


@pytest.mark.parametrize(
    "text", ["", "x", "shortproc_ended_processes_total 1e999\n", METRICS.read_text().replace('outcome="ok"', 'outcome="\\x1b"')]
)
def test_totals_of_anything_else(text: str) -> None:
    """Whoever answers may be anybody; `Following` makes `Ended` of it."""
    with pytest.raises((ValueError, LookupError, ArithmeticError)):
        totals(text)


@pytest.mark.parametrize(
    "call",
    [
        lambda: exporter.watch("top"),  # type: ignore[arg-type]
        lambda: exporter.watch(short_threshold_seconds=-1),
        lambda: exporter.watch(arguments="some"),  # type: ignore[arg-type]
        lambda: exporter.watch(only=exporter.Filter(comm=("",))),
        lambda: exporter.follow("http://h", only=exporter.Filter(outcome=("fine",))),
    ],
)
def test_bad_values(call: object) -> None:
    """They are told before anything starts."""
    assert callable(call)
    with pytest.raises(ValueError, match="is not"):
        call()


def test_the_exporter_does_without() -> None:
    """Importing the package loads nothing of the library; all of its names are there all the same."""
    code = "import sys, exporter; print([name for name in sys.modules if name.startswith('exporter.')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert exporter.__all__ == api.__all__
    assert all(getattr(exporter, name) is getattr(api, name) for name in api.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        exporter.nothing  # type: ignore[attr-defined]  # noqa: B018
