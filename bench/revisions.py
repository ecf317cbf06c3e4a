"""What the BPF programs cost for a process, against those of another revision: old object against new, in one run.

AGAINST=REVISION python -m bench revisions    # with WRITE=1, `make docs` makes the table of docs/adr/0010 from it
AGAINST=HEAD CONFIG=FILE python -m bench revisions    # what an option costs: only this revision has the configuration

Each revision's own exporter runs alone, in turn, so that neither finds cache lines that the other has fetched.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import costs, results
from bench.exporter import running
from bench.workloads import Workload, built

ROOT = Path(__file__).parents[1]
_ROUNDS = 16
_STORMS = {"fork+exec": ("forkexec", 5000), "vfork+exit": ("vfork", 20_000)}

_Costs = dict[str, float]
"""Nanoseconds a process, by program."""


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """Another revision with its own objects, compiled, in a folder that is removed after."""
    with tempfile.TemporaryDirectory(prefix="shortproc-revision-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        archive = subprocess.run(["git", "archive", revision], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        for program in ("lifecycle", "failures"):
            subprocess.run([sys.executable, folder / "bpf/build.py", folder / f"exporter/_bpf/{program}.bpf.o"], check=True)
        subprocess.run([sys.executable, "-m", "compileall", "-q", folder / "exporter"], check=True)  # as it is installed
        yield folder


def _measured(checkout: Path, workload: Workload) -> dict[str, _Costs]:
    """One round of each storm."""
    found: dict[str, _Costs] = {}
    config = os.environ.get("CONFIG") if checkout == ROOT else None
    with running("--mode=ebpf_core", *([f"--config.file={config}"] if config else []), checkout=checkout) as exporter:
        time.sleep(1)
        for title, storm in _STORMS.items():
            found[title] = costs.storm_ns(exporter, workload, *storm)
    return found


def _ratio(new: list[dict[str, _Costs]], old: list[dict[str, _Costs]], title: str, program: str) -> float:
    """Return the median of the ratios of each round."""
    return statistics.median(mine[title][program] / theirs[title][program] for mine, theirs in zip(new, old, strict=True))


def main() -> None:
    """Print the medians of all rounds, by program, and how the sums of each round compare."""
    revision = os.environ.get("AGAINST")
    if not revision:
        print("AGAINST=REVISION says which revision to compare with")
        return
    with costs.statistics(), built() as workload, checked_out(revision) as before:
        rounds: dict[Path, list[dict[str, _Costs]]] = {before: [], ROOT: []}
        for number in range(_ROUNDS):
            for checkout in (before, ROOT) if number % 2 else (ROOT, before):
                rounds[checkout].append(_measured(checkout, workload))
    storms = {}
    for title in _STORMS:
        sums = {checkout: [sum(each[title].values()) for each in found] for checkout, found in rounds.items()}
        for checkout, name in ((before, revision), (ROOT, "this one")):
            medians = {
                program: statistics.median(each[title].get(program, 0) for each in rounds[checkout])
                for program in sorted(rounds[checkout][0][title])
            }
            detail = ", ".join(f"{program} {ns:.0f}" for program, ns in medians.items())
            print(f"{title}, {name}: {statistics.median(sums[checkout]):.0f} ns a process, at least {min(sums[checkout]):.0f} ({detail})")
        ratio = statistics.median(new / old for new, old in zip(sums[ROOT], sums[before], strict=True))
        by_program = ", ".join(
            f"{program} {_ratio(rounds[ROOT], rounds[before], title, program) - 1:+.1%}" for program in ("on_exit", "on_free")
        )
        print(f"{title}: {ratio - 1:+.1%}, the median of {_ROUNDS} rounds ({by_program})")
        storms[title] = {
            "before_ns": round(statistics.median(sums[before])),
            "after_ns": round(statistics.median(sums[ROOT])),
            "percent": round(100 * (ratio - 1), 1),
        }
    results.write("revisions", {"against": revision, "rounds": _ROUNDS, "storms": storms})


if __name__ == "__main__":
    main()
