"""`/api/v1/lineage`: who starts what, as a tree in JSON or as folded stacks; and the same on the page.

Query, each at most once:
    format   json or folded
    by       what is largest and comes first: processes, cpu or runtime; in folded stacks, the number
    seconds  the last so many, at most 300
    limit    maximum number of nodes
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping
from typing import Any

from exporter.model import NS, comm_text
from exporter.model.activity import WINDOW_SECONDS
from exporter.records.shown import QUESTION, stack
from exporter.records.stacks import RecentStacks, Stack, Sums
from exporter.records.tree import By, Node, folded, pruned, tree
from exporter.web.api import BadQuery, number, parsed
from exporter.web.parts import Table, shares

MAX_LIMIT = 5000
_LIMIT = 1000
_ROWS = 20
_PARAMETERS = ("format", "by", "seconds", "limit")
_FORMATS = ("json", "folded")


def answer(recent: RecentStacks, query: str) -> tuple[str, str]:
    """Return the answer to a query, and its content type. Raises `BadQuery`."""
    given = parsed(query, _PARAMETERS)
    form, by = _choice(given, "format", _FORMATS), By(_choice(given, "by", tuple(By)))
    seconds = number(given, "seconds", WINDOW_SECONDS) or WINDOW_SECONDS
    limit = number(given, "limit", MAX_LIMIT) or _LIMIT
    sums, dropped = recent.within(seconds)
    root, truncated = pruned(tree(sums), limit, by)
    if form == "folded":
        return "".join(f"{line}\n" for line in folded(_own(root), by)), "text/plain; charset=utf-8"
    about = {"by": by, "seconds": seconds, "limit": limit, "truncated": truncated, "dropped": dropped}
    return json.dumps({**about, "lineage": _json(root, by)}) + "\n", "application/json"


def table(recent: RecentStacks) -> Table:
    """Return the table of the stacks with most processes, for the page."""
    sums, dropped = recent.within(WINDOW_SECONDS)
    first = heapq.nlargest(_ROWS, sums.items(), key=lambda each: each[1].processes)
    rows = [(stack(names), f"{each.processes:,}", _cpu(each), f"{each.runtime_ns / NS:,.3f}") for names, each in first]
    sample = f" A sample: the records of {dropped:,} processes were dropped." if dropped else ""
    return Table(
        "lineage",
        f"Who starts what in the last {WINDOW_SECONDS // 60} minutes",
        f"Short processes by the names of their ancestors and their own.{sample}",
        ("@Ancestors and name", "#Processes", "#CPU s", "#Runtime s"),
        rows,
        shares([each.processes for _, each in first]),
        filtered=True,
    )


def _cpu(sums: Sums) -> str:
    return QUESTION if sums.cpu_unknown == sums.processes else f"{sums.cpu_ns / NS:,.3f}"


def _own(root: Node) -> dict[Stack, Sums]:
    """Return the sums of a tree by stack, those below not included."""
    found: dict[Stack, Sums] = {}

    def add(node: Node, names: Stack) -> None:
        own = node.own()
        if own.processes:
            found[names] = own
        for child in node.children.values():
            add(child, (*names, child.name))

    add(root, ())
    return found


def _json(node: Node, by: By) -> dict[str, Any]:
    return {
        "name": comm_text(node.name),
        "processes": node.sums.processes,
        "cpu_seconds": node.sums.cpu_ns / NS,
        "cpu_unknown": node.sums.cpu_unknown,
        "runtime_seconds": node.sums.runtime_ns / NS,
        "children": [_json(child, by) for child in node.largest_first(by)],
    }


def _choice(given: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    value = given.get(name, choices[0])
    if value not in choices:
        raise BadQuery(f"{name} is none of {', '.join(choices)}")
    return value
