"""Why eBPF programs can't be loaded, from what the kernel tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.kernel import capabilities


@pytest.mark.parametrize(
    ("lockdown", "command_line", "is_refused"),
    [
        ("none integrity [confidentiality]\n", "quiet", True),
        ("none [integrity] confidentiality\n", "lockdown=integrity", False),
        ("[none] integrity confidentiality\n", "lockdown=confidentiality", False),
        (None, "quiet lockdown=confidentiality panic=-1\n", True),
        (None, "quiet\n", False),
    ],
)
def test_lockdown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lockdown: str | None, command_line: str, is_refused: bool) -> None:
    """Programs can't read the kernel then. Without securityfs only the command line tells; an attempt can damage Linux 6.12."""
    monkeypatch.setattr(capabilities, "in_initial_user_namespace", lambda: True)
    monkeypatch.setattr(capabilities, "effective", lambda: ~0)
    monkeypatch.setattr(capabilities, "_LOCKDOWN", tmp_path / "lockdown")
    monkeypatch.setattr(capabilities, "_COMMAND_LINE", tmp_path / "cmdline")
    (tmp_path / "cmdline").write_text(command_line)
    if lockdown is not None:
        (tmp_path / "lockdown").write_text(lockdown)
    assert ("lockdown=confidentiality" in (capabilities.bpf_refusal() or "")) == is_refused
