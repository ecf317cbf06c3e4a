"""The table of docs/scaling.md that says where the memory of an exporter goes, from bench/results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench import results
from docs.marks import measured_on, table

_PROCESSES = {"serving": "serving process", "broker": "broker"}


def blocks() -> dict[str, str]:
    """Return the blocks of docs/scaling.md."""
    result = results.read("memory")
    moments: dict[str, dict[str, Any]] = result["moments"]
    titles = {"idle": "idle", "scraped": f"after {result['scrapes']} scrapes", "flood": f"after a flood of {result['flood']:,} names"}
    head = ("PSS", *(titles[moment] for moment in moments))
    return {"memory": table(head, _rows(list(moments.values()))) + f"\n{measured_on(result, 'memory')}\n"}


def _rows(moments: Sequence[dict[str, Any]]) -> Iterator[Sequence[str]]:
    for process, title in _PROCESSES.items():
        of_process = [each["processes_kib"][process] for each in moments]
        for kind in of_process[0]:
            yield (f"{title}: {kind}", *(_mib(each[kind]) for each in of_process))
    yield ("together", *(_mib(each["together_kib"]) for each in moments))
    yield ("together, if no other process maps the same files", *(_mib(each["alone_kib"]) for each in moments))


def _mib(kib: int) -> str:
    return f"{kib / 1024:.1f} MiB"
