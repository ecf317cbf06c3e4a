"""Reads the counts of `failures.bpf.o`: failed forks, failed execs and OOM kills, as far as these parts are attached."""

from __future__ import annotations

from exporter.kernel.attached import FAILURES_MAP, MISSING_PARTS, Handover
from exporter.model.failures import FAILURES, Failure, Kind

_ZERO = b"\0" * 4
_TITLES = {Kind.FORK: "failed forks", Kind.EXEC: "failed execs", Kind.OOM_KILL: "OOM kills"}


class FailureCounts:
    """The counts since the last drain. The methods raise `OSError`."""

    def __init__(self, kernel: Handover) -> None:
        self._kernel = kernel
        self._drained: dict[Failure, int] = {}

    def peek(self) -> dict[Failure, int]:
        """Return the growth since the last drain, also where it is 0. Failures of parts that are not attached are left out."""
        return {failure: n - self._drained.get(failure, 0) for failure, n in self._sums().items()}

    def drain(self) -> dict[Failure, int]:
        """Return what `peek` does, and start from zero."""
        now = self._sums()
        fresh = {failure: n - self._drained.get(failure, 0) for failure, n in now.items()}
        self._drained = now
        return fresh

    def missing(self) -> str:
        """Return the reasons why parts are not attached, as a text for `doctor`; empty if all are."""
        reasons: dict[str, str] = self._kernel.facts.get(MISSING_PARTS, {})
        return "".join(f"; {_TITLES[Kind(kind)]} are not counted: {reason}" for kind, reason in reasons.items())

    def _sums(self) -> dict[Failure, int]:
        sums: dict[Failure, int] = {}
        for kind in Kind:
            if each := self._kernel.maps.get(FAILURES_MAP + kind):
                words = memoryview(each.lookup(_ZERO) or b"").cast("Q")
                sums |= {failure: sum(words[at :: len(FAILURES)]) for at, failure in enumerate(FAILURES) if failure.kind is kind}
        return sums
