"""Decodes the status of a process, as in wait(2)."""

from __future__ import annotations

from signal import SIGKILL

from exporter.model import Outcome
from exporter.model.exits import ProcessExit

_OK, _ERROR, _SIGNAL, _UNKNOWN = Outcome.OK, Outcome.ERROR, Outcome.SIGNAL, Outcome.UNKNOWN  # faster than attributes of the enum
_SIGNAL_BITS, CORE_DUMPED = 0x7F, 0x80


def outcome_of(status: int) -> tuple[Outcome, int | None]:
    """Return the outcome, and the exit code or signal; unknown if `status` is below 0."""
    if status < 0:
        return _UNKNOWN, None
    if signal := status & _SIGNAL_BITS:
        return _SIGNAL, signal
    return (_ERROR if status else _OK), status >> 8 & 0xFF


def with_status(exited: ProcessExit, status: int) -> ProcessExit:
    """Return `exited` with the outcome, code and core dump in `status`."""
    outcome, code = outcome_of(status)
    return exited._replace(outcome=outcome, code=code, core_dump=bool(status & CORE_DUMPED), sigkill=outcome is _SIGNAL and code == SIGKILL)
