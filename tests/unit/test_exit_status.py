"""How a process ended."""

from __future__ import annotations

import pytest

from exporter.kernel.wait_status import outcome_of, with_status
from exporter.model import Outcome
from exporter.model.exits import ProcessExit

OK, ERROR, SIGNAL, UNKNOWN = Outcome


@pytest.mark.parametrize(
    ("status", "outcome", "code", "core_dump", "sigkill"),
    [
        (0, OK, 0, False, False),
        (0x100, ERROR, 1, False, False),
        (0x900, ERROR, 9, False, False),
        (0x8B, SIGNAL, 11, True, False),
        (9, SIGNAL, 9, False, True),
    ],
)
def test_fate(status: int, outcome: Outcome, code: int, core_dump: bool, sigkill: bool) -> None:
    """As wait(2) tells an exit from a signal."""
    exited = with_status(ProcessExit(0, 0, b"", b""), status)
    assert (exited.outcome, exited.code, exited.core_dump, exited.sigkill) == (outcome, code, core_dump, sigkill)


def test_what_is_not_known_is_no_success() -> None:
    """Programs that can't tell write -1."""
    assert outcome_of(-1) == (UNKNOWN, None)
