"""The sentences of docs/snoop.md and docs/top.md that say what these commands cost, from bench/results/commands.json."""

from __future__ import annotations

from bench import results
from docs.marks import measured_on


def snoop() -> dict[str, str]:
    """Return the block of docs/snoop.md."""
    result = results.read("commands")
    cost = result["snoop"]
    what = f"Printing a storm of {result['storm']:,} processes into a file, snoop took {cost['cpu_us']:.0f} us of CPU for each of them"
    return {"cost": f"{what}. {measured_on(result, 'commands')}\n"}


def top() -> dict[str, str]:
    """Return the block of docs/top.md."""
    result = results.read("commands")
    own, following = result["top"], result["top_url"]
    pace = f"On a terminal of 80x24 and at {own['rate']:,.0f} processes per second, each with an exec"
    parts = f"{own['main_percent']:.1f} % to sum them up and to draw, of which drawing alone takes {own['draw_percent']:.1f} %"
    there = f"With `--url` it took {following['percent']:.1f} %, besides the CPU of the exporter that it follows"
    return {"cost": f"{pace}, top took {own['percent']:.1f} % of a core: {parts}. {there}. {measured_on(result, 'commands')}\n"}
