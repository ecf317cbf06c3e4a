"""What doctor says of a host, for people and for tools, without root."""

from __future__ import annotations

import json

import pytest

from exporter import cli
from exporter.model import Mode


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Its status, and what it prints."""
    status = cli.main(["doctor", *arguments])
    return status, capsys.readouterr().out


def test_the_same_for_people_and_for_tools(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever installs on many hosts reads JSON; nothing of it is missing there."""
    status, out = said(capsys, "--mode=scan", "--json")
    report = json.loads(out)
    assert (status, report["asked"], report["selected"]) == (0, "scan", "scan")
    assert [each["mode"] for each in report["modes"]] == list(Mode)
    assert all(each["needs"] for each in report["modes"])
    text = said(capsys, "--mode=scan")[1]
    assert all(str(report[name]) in text for name in ("version", "kernel", "architecture", "procfs", "selected"))
    assert all(note in text for note in report["notes"])


@pytest.mark.parametrize(("required", "status"), [(Mode.SCAN, 0), (Mode.FAST_SCAN, 0), (Mode.NETLINK, 1), (Mode.EBPF_CORE, 1)], ids=str)
def test_a_gate_for_installations(capsys: pytest.CaptureFixture[str], required: Mode, status: int) -> None:
    """A mode that is worse than what is required fails, and a better one does not."""
    assert said(capsys, "--fast-scan", f"--require={required}")[0] == status
    assert said(capsys, "--fast-scan", "--json", f"--require={required}")[0] == status
