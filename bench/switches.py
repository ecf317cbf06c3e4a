"""Fifty switches from mode to mode in the middle of a storm whose truth is known: what was counted, of what there was.

WRITE=1 python -m bench switches    # keeps the result, from which `make docs` makes the table of docs/adr/0010
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from bench import results
from bench.workloads import Workload, built
from exporter.config.options import Config, Detection, Metrics
from exporter.loaders.direct import Direct
from exporter.model import Lost, Mode, SwitchReason
from exporter.model.counts import ProcessCounts
from exporter.model.dimensions import COMM
from exporter.records.hub import Hub
from exporter.supervision.modes import loader_settings
from exporter.supervision.supervisor import Supervisor

_PAIRS = ((Mode.EBPF_CORE, Mode.EBPF_CORE), (Mode.EBPF_CORE, Mode.EBPF_BCC), (Mode.EBPF_CORE, Mode.NETLINK))
_SWITCHES = 50
_WITHOUT_SECONDS = 60
"""The same storm without a switch, for comparison: CPU never comes now and then."""
_REST_SECONDS = 8
"""Until every map has been drained, and all CPU has come."""
_STORM = 1000
_CONFIG = Config(metrics=Metrics(max_comms=1000, new_series_hold_seconds=0))


@dataclass(slots=True)
class Truth:
    """What the storms did."""

    processes: int = 0
    cpu_ns: int = 0
    seconds: float = 0


class _Storming(threading.Thread):
    """Storms one after the other, until it is stopped."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(daemon=True)
        self._workload = workload
        self._over = threading.Event()
        self.truth = Truth()

    def run(self) -> None:
        """Until it is stopped."""
        begun = time.monotonic()
        while not self._over.is_set():
            self.truth.cpu_ns += self._workload.run("forkexec", _STORM, self._workload.tiny).children_ns
            self.truth.processes += _STORM
        self.truth.seconds = time.monotonic() - begun

    def stop(self) -> Truth:
        """And wait for the last storm."""
        self._over.set()
        self.join()
        return self.truth


def _tick(supervisor: Supervisor, seconds: int) -> None:
    """Tick for so long as the application does."""
    for _ in range(seconds):
        time.sleep(1)
        supervisor.tick()


def _settle(supervisor: Supervisor) -> None:
    """Tick until the source that was active before has been stopped."""
    while supervisor.switching:
        time.sleep(0.25)
        supervisor.tick()


def _measured(pair: tuple[Mode, Mode], workload: Workload, switches: int) -> dict[str, object]:
    hub = Hub(1_000_000)
    config = replace(_CONFIG, detection=Detection(mode=pair[0]))
    supervisor = Supervisor(config, hub, Direct(loader_settings(config)))
    supervisor.start()
    try:
        before = supervisor.snapshot().sample
        storming = _Storming(workload)
        storming.start()
        if not switches:
            _tick(supervisor, _WITHOUT_SECONDS)
        for number in range(switches):
            time.sleep(0.1)
            supervisor.switch([pair[(number + 1) % 2]], SwitchReason.CONFIG)
            _settle(supervisor)
        truth = storming.stop()
        _tick(supervisor, _REST_SECONDS)
        snapshot = supervisor.snapshot()
    finally:
        supervisor.stop()
    counts, sample = snapshot.view.counts, snapshot.sample
    rows = {row.labels: row.counts for row in snapshot.view.rows[COMM]}
    mine = rows.get((workload.tiny.name,), ProcessCounts())
    recorded = sum(record.comm == workload.tiny.name.encode() for record in hub.recent())
    if before is None or sample is None:
        raise SystemExit("the kernel's count of clones can't be read")
    return {
        "modes": [mode.value for mode in pair],
        "switches": switches,
        "processes": truth.processes,
        "per_second": round(truth.processes / truth.seconds),
        "exits": sum(mine.exits) - truth.processes,
        "execs": mine.execs - truth.processes,
        "clones": (sample.observed - before.observed) - (sample.kernel - before.kernel),
        "records": recorded - sum(mine.exits),
        "cpu_percent": round(100 * (mine.cpu_ns / truth.cpu_ns - 1), 2),
        "switch_unsure": counts.lost.get(Lost.SWITCH_UNSURE, 0),
        "cpu_never_came": counts.lost.get(Lost.CPU_NEVER_CAME, 0),
        "program_missed": counts.lost.get(Lost.PROGRAM_MISSED, 0),
    }


def main() -> None:
    """Print what differs from the truth, for each pair of modes."""
    measured = []
    with built() as workload:
        for number, (pair, switches) in enumerate([(_PAIRS[0], 0), *((pair, _SWITCHES) for pair in _PAIRS)]):
            tiny = workload.tiny.with_name(f"{workload.tiny.name}{number}")
            tiny.hardlink_to(workload.tiny)
            measured.append(_measured(pair, replace(workload, tiny=Path(tiny)), switches))
            row = measured[-1]
            print(f"{' and '.join(pair)}: {row['switches']} switches, {row['processes']} processes, {row['per_second']} a second")
            print("  difference to the truth: " + ", ".join(f"{name} {row[name]:+}" for name in ("exits", "execs", "clones", "records")))
            print(f"  CPU {row['cpu_percent']:+} %; published: " + ", ".join(f"{name} {row[name]}" for name in list(row)[-3:]))
    results.write("switches", {"pairs": measured})


if __name__ == "__main__":
    main()
