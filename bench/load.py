"""A mixed load whose truth is known, and what of it an exporter has neither counted, stored nor published as lost."""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter

from bench.exporter import Samples
from bench.storms import total
from bench.workloads import Workload

_LOAD: tuple[tuple[tuple[object, ...], str, int], ...] = (
    (("vfork", 1000), "ok", 1000),
    (("together", 50, 8), "ok", 50),
    (("scatter", 50, 8), "ok", 50),
    (("leader", 20, 5, 5), "error", 20),
    (("burn", 10, 2, 4), "ok", 10),
    (("end", 100, 3), "error", 100),
    (("kill", 50, signal.SIGSEGV.value), "signal", 50),
    (("kill", 50, signal.SIGKILL.value), "signal", 50),
    (("uring", 20), "ok", 20),
    (("comms", 60), "ok", 0),
    (("forkexec", 300), "ok", 300),
    (("chain", 30), "ok", 30),
)
"""Arguments, and how many processes end how under the storm's name, its own left out. The last two are called as the tiny program is."""
_AS_TINY = ("forkexec", "chain")

Truth = Counter[tuple[str, str]]
"""Processes by comm and outcome."""


class Load(threading.Thread):
    """One storm after the other, until it is stopped."""

    def __init__(self, workload: Workload, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self._workload = workload
        self._chance = chance
        self._over = threading.Event()
        self.truth: Truth = Counter()
        self.start()

    def run(self) -> None:
        """Until it is stopped."""
        storm, tiny = self._workload.storm.name, self._workload.tiny
        while not self._over.wait(0.05):
            arguments, outcome, n = self._chance.choice(_LOAD)
            is_tiny = arguments[0] in _AS_TINY
            self._workload.run(*arguments, *([tiny] if is_tiny else []))
            self.truth[tiny.name if is_tiny else storm, outcome] += n
            self.truth[storm, "ok"] += 1

    def stop(self) -> Truth:
        """And wait for the last storm."""
        self._over.set()
        self.join()
        return self.truth


_OF_CPU = "cpu_"
"""Reasons of loss that begin so tell of CPU alone."""


def miscounted(before: Samples, after: Samples, truth: Truth, *, is_last: bool) -> list[str]:
    """Return what differs from the truth. The last time, only what no published loss explains, nor a mode that knows no outcomes."""

    def grown(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    differ = {key: grown("shortproc_comm_exits_total", comm=key[0], outcome=key[1]) - n for key, n in truth.items()}
    wrong = {key: n for key, n in differ.items() if n}
    of_unknown_outcome = sum(grown("shortproc_comm_exits_total", comm=comm, outcome="unknown") for comm in {comm for comm, _ in truth})
    reasons = {dict(labels)["reason"] for name, labels in after if name == "shortproc_detection_lost_total"}
    lost = sum(grown("shortproc_detection_lost_total", reason=each) for each in reasons if not each.startswith(_OF_CPU))
    if is_last and sum(map(abs, wrong.values())) <= lost + of_unknown_outcome:
        return []
    return [f"{comm} {outcome} {n:+.0f}" for (comm, outcome), n in wrong.items()]


def unstored(samples: Samples) -> list[str]:
    """Return how many records of short processes each sink neither stored nor lost, since the start."""
    short = total(samples, "shortproc_ended_short_processes_total") - total(samples, "shortproc_records_dropped_total")
    unstored = {}
    for sink in ("jsonl", "sqlite", "otlp"):
        handled, lost = (total(samples, f"shortproc_handler_{name}_total", handler=sink) for name in ("records", "lost_records"))
        unstored[sink] = short - handled - lost
    return [f"{sink} lacks {n:.0f} records" for sink, n in unstored.items() if n > 0]
