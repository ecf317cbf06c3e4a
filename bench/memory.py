"""Where the memory goes: of the serving process and its broker, by what is mapped, at several moments.

python -m bench memory                     # with WRITE=1, `make docs` makes the table of docs/scaling.md from it
AGAINST=REVISION python -m bench memory    # another revision beside it, in one run

PSS is from `/proc/PID/smaps`: a page that several processes map is divided among them. Other programs on this host that run in Python
take a share of the interpreter. `alone` is the most that it can be: every file's pages count once, whoever else maps them.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from bench import results
from bench.exporter import Running, running
from bench.revisions import ROOT, checked_out
from bench.workloads import Workload, built

_FLOOD = 20_000
_SCRAPES = 100
_SETTLE_SECONDS = 7
"""Longer than the interval of drains."""
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)")
_KINDS: dict[str, Callable[[str], bool]] = {
    "BPF maps": lambda name: name.startswith("anon_inode:"),
    "interpreter": lambda name: name.rpartition("/")[2].startswith("python3"),
    "libraries": lambda name: name.startswith("/"),
    "heap and stacks": lambda _: True,
}

Kib = dict[str, int]


def _mappings(pid: int) -> Iterator[tuple[str, Kib]]:
    """Yield the name and sizes of each mapping."""
    name, sizes = "", Kib()
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if mapping := _MAPPING.fullmatch(line):
            if sizes:
                yield name, sizes
            name, sizes = mapping[1], {}
        elif line.endswith(" kB"):
            key, size, _ = line.split()
            sizes[key.removesuffix(":")] = int(size)
    yield name, sizes


def _measured(pids: list[int]) -> tuple[dict[str, Kib], int]:
    """Return the PSS by process and kind, and what both would take if nothing else on the host mapped their files."""
    found: dict[str, Kib] = {}
    private, files = 0, Counter[str]()
    for role, pid in zip(("serving", "broker"), pids, strict=False):
        by_kind, resident = Counter[str](), Counter[str]()
        for name, sizes in _mappings(pid):
            by_kind[next(kind for kind, holds in _KINDS.items() if holds(name))] += sizes["Pss"]
            private += sizes["Anonymous"]
            resident[name] += sizes["Rss"] - sizes["Anonymous"]
        found[role] = dict(by_kind)
        files |= resident
    return found, private + files.total()


def _shown(exporter: Running, moment: str) -> dict[str, Any]:
    found, alone = _measured([exporter.pid, *exporter.children()])
    total = sum(sum(kinds.values()) for kinds in found.values())
    print(f"  {moment}: PSS {total / 1024:.1f} MiB, alone {alone / 1024:.1f} MiB")
    for role, kinds in found.items():
        detail = ", ".join(f"{kind} {kinds.get(kind, 0) / 1024:.1f}" for kind in _KINDS)
        print(f"    {role}: {sum(kinds.values()) / 1024:.1f} ({detail})")
    return {"processes_kib": found, "together_kib": total, "alone_kib": alone}


def _one(folder: Path, workload: Workload) -> dict[str, dict[str, Any]]:
    found = {}
    with running("--mode=ebpf_core", checkout=folder) as exporter:
        print(f"  ready after {exporter.ready_seconds:.2f} s")
        time.sleep(_SETTLE_SECONDS)
        found["idle"] = _shown(exporter, "idle")
        for _ in range(_SCRAPES):
            exporter.get(coding="gzip")
        found["scraped"] = _shown(exporter, f"after {_SCRAPES} scrapes")
        workload.run("comms", _FLOOD)
        exporter.get(coding="gzip")
        time.sleep(_SETTLE_SECONDS)
        exporter.get(coding="gzip")
        found["flood"] = _shown(exporter, f"after a flood of {_FLOOD:,} names")
    return found


def main() -> None:
    """Print the figures, of another revision first if one is named."""
    revision = os.environ.get("AGAINST")
    with built() as workload, checked_out(revision) if revision else nullcontext() as before:
        if before is not None:
            print(revision)
            _one(before, workload)
            print("this one")
        found = _one(ROOT, workload)
    results.write("memory", {"flood": _FLOOD, "scrapes": _SCRAPES, "moments": found})


if __name__ == "__main__":
    main()
