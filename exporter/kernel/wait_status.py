"""How a process ended, by its status as wait(2) gives it."""

from __future__ import annotations

from signal import SIGKILL

from exporter.model import Outcome
from exporter.model.exits import ProcessExit

_OK, _ERROR, _SIGNAL, _UNKNOWN = Outcome.OK, Outcome.ERROR, Outcome.SIGNAL, Outcome.UNKNOWN  # quicker than attributes of the enum
_SIGNAL_BITS, CORE_DUMPED = 0x7F, 0x80


def outcome_of(status: int) -> tuple[Outcome, int | None]:
    """Outcome, and exit code or signal; below 0 is unknown."""
    if status < 0:
        return _UNKNOWN, None
    if signal := status & _SIGNAL_BITS:
        return _SIGNAL, signal
    return (_ERROR if status else _OK), status >> 8 & 0xFF


def with_status(exited: ProcessExit, status: int) -> ProcessExit:
    """Add how it ended."""
    outcome, code = outcome_of(status)
    return exited._replace(outcome=outcome, code=code, core_dump=bool(status & CORE_DUMPED), sigkill=outcome is _SIGNAL and code == SIGKILL)
