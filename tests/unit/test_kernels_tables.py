"""docs/kernels.md: what failed on a kernel, was refused or could not be had must not look like a success."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from docs import kernels_tables
from tests.vm.matrix import Found
from tests.vm.report import Section


def guest(name: str, sections: dict[str, Section], skipped: str = "") -> dict[str, Any]:
    """A kept result of one guest."""
    result = {"release": "6.1.0", "architecture": "x86_64", "sections": sections} if sections else {}
    return asdict(Found(name, "6.1", 100, skipped, result))


@pytest.mark.parametrize(
    ("section", "cell"),
    [
        (Section(checks=4), "exact (4)"),
        (Section(checks=4, failed=["vfork: 3, not 4"]), "**1 of 4 failed**"),
        (Section(failed=["OSError: no"]), "**1 of 0 failed**"),
        (Section(refused="there is no BTF"), "refused: there is no BTF"),
        (Section(skipped=["jit: this kernel keeps it"]), "skipped: jit: this kernel keeps it"),
    ],
)
def test_verdicts(section: Section, cell: str) -> None:
    """One section, as a kernel's and as a condition's."""
    assert kernels_tables._kernel(guest("Linux 6.1", {"storms": section}))[2] == cell
    assert list(kernels_tables._conditions(guest("settings", {"pid_max 301": section}))) == [("pid_max 301", "6.1.0", cell)]


def test_guests_without_a_result() -> None:
    """One that crashed, and one that could not be had."""
    assert kernels_tables._kernel(guest("Linux 6.1", {}))[1] == "no result"
    assert kernels_tables._kernel(guest("Linux 6.1", {}, "no kernel 6.1 is to be had"))[1] == "no kernel 6.1 is to be had"
