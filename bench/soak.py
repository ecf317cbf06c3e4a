"""`make soak`: a mixed load whose truth is known, while faults come to the exporter, its children, its disk and its limits.

A round has some load and one to three faults, chosen by a seed that is printed. After it, what was counted has to be the truth, or a
loss has to be published, and each record of a short process has to be stored, or counted as lost. In the first half the exporter itself is
killed now and then, and started again. In the last quarter nobody reads its log any more. At the end memory, descriptors, threads and BPF
maps are what they were after the warm-up, and nothing is left behind.

`python -m bench.soak --seconds=180 --seed=5 "disk full"` takes only some of the faults.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from statistics import median_low

import psutil

from bench.exporter import Running, Samples, running
from bench.faults import FAULTS, Victim
from bench.load import Load, Truth, miscounted, unstored
from bench.otlp_receiver import Receiver
from bench.processes import Taken, family, loaded, marked, programs_of, taken
from bench.storms import Scraper, total
from bench.workloads import Workload, built

_MARK = "SHORTPROC_SOAK"
_SINK_UID = 54_321
_DISK_MIB = 24
_SCRAPE_SECONDS = 5.0
_SETTLE_SECONDS = 40.0
_GRACE_SECONDS = 12.0
"""After a fault: a scrape that began during it may fail this much later."""
_SHOWN_BYTES = 8192
_KILL_EACH = 5
"""Rounds of the first half, one of which kills the exporter."""
_MOST_MORE = Taken(pss_kib=8 << 10, descriptors=6, threads=2, bpf_kib=64)
"""In the last third of a life than in its first, by medians: single values of memory differ by 5 MiB either way."""
_OPTIONS = f"""
metrics: {{new_series_hold_seconds: 0, max_comms: 200}}
detection: {{retry_seconds: 5}}
sinks:
  jsonl: {{path: %(sinks)s/records.jsonl, max_bytes: {1 << 20}, keep: 2}}
  sqlite: {{path: %(sinks)s/records.db, max_bytes: {4 << 20}}}
  otlp: {{endpoint: "%(receiver)s"}}
"""


class _Life:
    """One exporter, from its start to its end."""

    def __init__(self, exporter: Running, victim: Victim, log: _Log) -> None:
        self.exporter = exporter
        self.log = log
        self.victim = victim
        self.scraper = Scraper(exporter, _SCRAPE_SECONDS)
        self.memory_was_short = False
        self.windows: list[tuple[float, float]] = []
        """When scrapes may fail."""
        self.taken: list[Taken] = []
        """After the warm-up and after each round."""
        self.programs = programs_of(exporter.pid)
        self.left: Samples = {}
        self.scraper.start()

    @property
    def has_ended(self) -> bool:
        """Whether the exporter has exited by itself."""
        return psutil.Process(self.exporter.pid).status() == psutil.STATUS_ZOMBIE

    def unexpected(self) -> list[str]:
        """Return what no fault explains: of its end, of its log, and of what the scraper saw."""
        return [*self._ends(), *self._of_scraper()]

    def _ends(self) -> Iterator[str]:
        """Without memory it may end, with one line, so that it is started again."""
        allowed = {0, -signal.SIGKILL, *({1} if self.memory_was_short else ())}
        if self.exporter.exit_status not in allowed:
            yield f"it ended with {self.exporter.exit_status}"
        for raised in self.log.raised():
            if not (self.memory_was_short and raised == "MemoryError"):
                yield f"a traceback in the log: {raised}"

    def _of_scraper(self) -> list[str]:
        failed = [at for at in self.scraper.failed if not any(begin <= at <= end + _GRACE_SECONDS for begin, end in self.windows)]
        return [
            *self.scraper.fell,
            *(f"a scrape failed {at - self.windows[0][0] if self.windows else at:.0f} s after the first fault" for at in failed),
        ]


class Soak:
    """All rounds, what they did, and what fell short."""

    def __init__(self, workload: Workload, sinks: Path, seed: int, names: list[str]) -> None:
        self._workload = workload
        self._sinks = sinks
        self._chance = random.Random(seed)
        self._names = names
        self._mark = uuid.uuid4().hex
        self.findings: list[str] = []
        self.faults: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.processes = 0
        self.scrapes = [0, 0]

    def run(self, seconds: float) -> None:
        """Live again and again, until the time is up."""
        until = time.monotonic() + seconds
        half, last_quarter = until - seconds / 2, until - seconds / 4
        while time.monotonic() < until:
            with self._life() as life:
                self._warm_up(life)
                number = 0
                while time.monotonic() < until:
                    number += 1
                    if number % _KILL_EACH == 0 and time.monotonic() < half:
                        self._kill(life)
                        break
                    if time.monotonic() > last_quarter:
                        life.log.close()
                    self._round(life)
                    if life.has_ended:
                        break
            self._check_nothing_left(life)

    @contextmanager
    def _life(self) -> Iterator[_Life]:
        read, write = os.pipe()
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as config, ExitStack() as stack:
            stack.callback(os.close, write)
            receiver = stack.enter_context(closing(Receiver(keep=False)))
            config.write(_OPTIONS % {"sinks": self._sinks, "receiver": receiver.url})
            config.flush()
            Path(config.name).chmod(0o644)
            log = _Log(read)
            exporter = stack.enter_context(running("--config.file", config.name, stderr=write, environment={_MARK: self._mark}))
            life = _Life(exporter, Victim(exporter.pid, self._sinks, receiver, self._chance), log)
            try:
                yield life
            finally:
                life.scraper.stop()
        log.close()
        self.scrapes[0] += life.scraper.scrapes
        self.scrapes[1] += len(life.scraper.failed)
        self.findings += life.unexpected()
        if self.findings:
            print(log.end(), flush=True)

    def _warm_up(self, life: _Life) -> None:
        """Fill what is kept in memory."""
        self._settled(life, life.exporter.samples(), self._loaded(6))
        life.taken.append(self._taken(life))

    def _loaded(self, seconds: float) -> Truth:
        load = Load(self._workload, random.Random(self._chance.random()))
        time.sleep(seconds)
        return load.stop()

    def _round(self, life: _Life) -> None:
        before = life.exporter.samples()
        chosen = self._chance.sample(self._names, min(len(self._names), self._chance.choice((1, 1, 2, 3))))
        begun = time.monotonic()
        load = Load(self._workload, random.Random(self._chance.random()))
        try:
            with ExitStack() as stack:
                for name in chosen:
                    time.sleep(self._chance.uniform(0.2, 2))
                    stack.enter_context(FAULTS[name](life.victim))
                time.sleep(self._chance.uniform(0.5, 6))
            time.sleep(self._chance.uniform(0.2, 2))
        finally:
            truth = load.stop()
        life.windows.append((begun, time.monotonic()))
        self.faults.update(chosen)
        life.memory_was_short |= "memory short" in chosen
        if life.memory_was_short and life.has_ended:
            life.windows.append((begun, float("inf")))
            print(f"  {', '.join(chosen)}: it ended, and is started again", flush=True)
            return
        problems = self._settled(life, before, truth)
        life.taken.append(self._taken(life))
        print(f"  {', '.join(chosen)}: {truth.total()} processes, {'; '.join(problems) or 'exact'}; {life.taken[-1]}", flush=True)
        self.findings += [f"{', '.join(chosen)}: {each}" for each in problems]

    def _settled(self, life: _Life, before: Samples, truth: Truth) -> list[str]:
        """Wait until everything is counted and stored. Returns what is not, after that time."""
        self.processes += truth.total()
        until = time.monotonic() + _SETTLE_SECONDS
        problems = ["no scrape succeeded"]
        while problems and time.monotonic() < until:
            time.sleep(1)
            with suppress(OSError, HTTPException):
                after = life.exporter.samples()
                problems = [*miscounted(before, after, truth, is_last=time.monotonic() > until - 2), *unstored(after)]
                sent = total(after, "shortproc_handler_records_total", handler="otlp")
                if (missing := sent - life.victim.receiver.accepted) > 0:
                    problems.append(f"the receiver lacks {missing:.0f} records that were sent")
                life.left = after
        for (name, labels), value in life.left.items():
            if name == "shortproc_detection_lost_total":
                self.lost[dict(labels)["reason"]] += int(value - before.get((name, labels), 0))
        return problems

    def _taken(self, life: _Life) -> Taken:
        """Return what the exporter takes, as little as it ever does within some seconds: clients come and go."""
        found = []
        for _ in range(5):
            found.append(taken([life.exporter.pid, *(each.pid for each in family(life.exporter.pid).values())]))
            time.sleep(0.3)
        return Taken(*map(min, zip(*found, strict=True)))

    def _kill(self, life: _Life) -> None:
        """Kill the exporter in the middle of a storm."""
        load = Load(self._workload, random.Random(self._chance.random()))
        time.sleep(self._chance.uniform(0.2, 3))
        life.windows.append((time.monotonic(), float("inf")))
        os.kill(life.exporter.pid, signal.SIGKILL)
        load.stop()
        self.faults["exporter killed"] += 1
        print("  exporter killed", flush=True)

    def _check_nothing_left(self, life: _Life) -> None:
        until = time.monotonic() + _SETTLE_SECONDS
        while (marked(self._mark) or any(map(loaded, life.programs))) and time.monotonic() < until:
            time.sleep(0.5)
        if left := marked(self._mark):
            self.findings.append(f"processes were left: {left}")
        if left := [each for each in life.programs if loaded(each)]:
            self.findings.append(f"BPF programs were left: {left}")
        if not life.taken:
            return
        third = -(-len(life.taken) // 3)
        early, late = (Taken(*map(median_low, zip(*part, strict=True))) for part in (life.taken[:third], life.taken[-third:]))
        for name, first, last, most in zip(Taken._fields, early, late, _MOST_MORE, strict=True):
            if last > first + most:
                self.findings.append(f"{name} grew from {first} to {last}")


class _Log:
    """Reads the log of an exporter, and keeps it."""

    def __init__(self, fd: int) -> None:
        self._text = bytearray()
        self._fd = fd
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over:
            if select.select([self._fd], [], [], 0.2)[0]:
                data = os.read(self._fd, 65536)
                if not data:
                    break
                self._text += data
        os.close(self._fd)

    def close(self) -> None:
        """Close it: from now on, whoever writes there gets an error."""
        self._over = True
        self._thread.join()

    def end(self) -> str:
        """Return its last lines."""
        return self._text[-_SHOWN_BYTES:].decode(errors="replace")

    def raised(self) -> list[str]:
        """Return the last line of each traceback."""
        parts = self._text.decode(errors="replace").split("Traceback (most recent call last)")[1:]
        return [next((line for line in part.splitlines()[1:] if not line.startswith(" ")), part[-200:]) for part in parts]


@contextmanager
def _small_disk() -> Iterator[Path]:
    """A file system of its own for the sinks, which can be filled."""
    with tempfile.TemporaryDirectory(prefix="shortproc-soak-") as name:
        Path(name).chmod(0o755)
        sinks = Path(name, "sinks")
        sinks.mkdir()
        options = f"size={_DISK_MIB}m,uid={_SINK_UID},gid={_SINK_UID},mode=0755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "shortproc-soak", sinks], check=True)
        try:
            yield sinks
        finally:
            subprocess.run(["umount", sinks], check=True)  # fails if a process has left a file open


def _table(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()) if n) or "none"


def main() -> None:
    """Soak, and print what was done. Exits with 1 if anything fell short."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="Faults under load; see bench/soak.py.")
    parser.add_argument("faults", nargs="*", help=f"of: {', '.join(FAULTS)}; all by default")
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{arguments.seconds:.0f} s, seed {arguments.seed}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before", flush=True)
    with _small_disk() as sinks, built("soak-storm", "soak-tiny") as workload:
        soak = Soak(workload, sinks, arguments.seed, arguments.faults or list(FAULTS))
        soak.run(arguments.seconds)
    print(f"faults: {_table(soak.faults)}")
    print(f"{soak.processes} processes; published losses: {_table(soak.lost)}")
    print(f"{soak.scrapes[0]} scrapes, {soak.scrapes[1]} failed during faults, {len(soak.findings)} findings")
    if soak.findings:
        raise SystemExit("falls short:\n  " + "\n  ".join(soak.findings))


if __name__ == "__main__":
    main()
