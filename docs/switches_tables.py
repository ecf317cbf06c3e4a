"""The tables of docs/adr/0010: what switches cost in counts, and what their programs cost, from bench/results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench import results
from docs.marks import measured_on, table
from exporter.model import Mode
from exporter.model.facts import Fact
from exporter.supervision.modes import SPECS

_PRECISE = "precise"


def blocks() -> dict[str, str]:
    """Return the blocks of docs/adr/0010-switches-by-the-clock.md."""
    result, costs = results.read("switches"), results.read("revisions")
    head = ("", "switches", "processes", "exits", "execs", "clones", "records", "CPU", "`switch_unsure`", "`cpu_never_came`")
    programs = (
        (title, f"{each['before_ns']} ns", f"{each['after_ns']} ns", f"{each['percent']:+} %") for title, each in costs["storms"].items()
    )
    before = f"before (`{costs['against']}`)"
    median = f"all programs, median of {costs['rounds']} rounds"
    return {
        "switches": table(head, map(_row, result["pairs"])) + f"\n{measured_on(result, 'switches')}\n",
        "costs": table((f"{median}, for each process", before, "after", "round by round"), programs)
        + f"\n{measured_on(costs, 'revisions')}\n",
    }


def _row(pair: dict[str, Any]) -> Sequence[str]:
    knows_cpu = all(SPECS[Mode(mode)].fills.get(Fact.CPU) == _PRECISE for mode in pair["modes"])
    differences = (f"{pair[what]:+}" if pair[what] else "0" for what in ("exits", "execs", "clones", "records"))
    return (
        " and ".join(f"`{mode}`" for mode in pair["modes"]) if pair["switches"] else f"`{pair['modes'][0]}`, no switch",
        str(pair["switches"]),
        f"{pair['processes']:,} at {pair['per_second']:,} a second",
        *differences,
        f"{pair['cpu_percent']:+} %" if knows_cpu else "not precise",
        f"{pair['switch_unsure']:,}",
        f"{pair['cpu_never_came']:,}",
    )
