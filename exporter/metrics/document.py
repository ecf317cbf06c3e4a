"""`python -m exporter.metrics.document [--check]`: the tables of docs/metrics.md. What stands between them is written by hand."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from exporter.metrics.catalogue import (
    DROPS,
    SIGNAL_NAMES,
    ByName,
    Family,
    OfClient,
    OfDetection,
    OfExporter,
    OfHandlers,
    Whole,
)
from exporter.model import Lost, Outcome, SwitchReason
from exporter.model.facts import Fact
from exporter.supervision.modes import MODES, SWITCH_LOSSES, ModeSpec

PAGE = Path(__file__).parents[2] / "docs/metrics.md"

E = TypeVar("E", bound=StrEnum)

BLOCK = re.compile(r"(?<=^<!-- generated: )(\w+)( -->\n).*?(?=^<!-- /generated -->$)", re.MULTILINE | re.DOTALL)


def rendered(page: str) -> str:
    """Return the page with every table as it should be; each has one place in it."""
    made = blocks()
    places = [name for name, _ in BLOCK.findall(page)]
    if sorted(places) != sorted(made):
        raise ValueError(f"places of tables: {sorted(places)}, tables: {sorted(made)}")
    return BLOCK.sub(lambda place: place[1] + place[2] + made[place[1]], page)


def blocks() -> dict[str, str]:
    """What belongs between the marks, by the name in the mark."""
    groups = {
        "whole": (Whole,),
        "by_name": (ByName,),
        "detection": (OfDetection,),
        "handlers": (OfHandlers,),
        "exporter": (OfExporter, OfClient),
    }
    causes = ((_code(reason), _modes_that_lose(reason), about) for reason, about in meanings(Lost))
    drops = ((_code(consumer), _code(reason), about) for (consumer, reason), about in DROPS.items())
    return {
        **{name: _table(("metric", "type", "labels", "unit", "modes", "meaning"), _rows(*group)) for name, group in groups.items()},
        "outcomes": _table(("`outcome`", "meaning"), ((_code(outcome), about) for outcome, about in meanings(Outcome))),
        "signals": f"`signal` is one of {', '.join(map(_code, SIGNAL_NAMES))}.\n",
        "switches": _table(("`reason`", "meaning"), ((_code(reason), about) for reason, about in meanings(SwitchReason))),
        "drops": _table(("`consumer`", "`reason`", "meaning"), drops),
        "losses": _table(("`reason`", "modes", "what is lost"), causes),
    }


def families(group: type) -> Iterator[Family]:
    """List the metrics of a group."""
    return (each for each in vars(group).values() if isinstance(each, Family))


def meanings(of: type[E]) -> Iterator[tuple[E, str]]:
    """List the members, each with the text that stands below it in the source."""
    nodes = pairwise(ast.walk(ast.parse(inspect.getsource(of))))
    below = {
        node.targets[0].id: ast.literal_eval(text.value)
        for node, text in nodes
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(text, ast.Expr)
    }
    return ((member, " ".join(below[member.name].split())) for member in of)


def _rows(*groups: type) -> Iterator[Sequence[str]]:
    for family in (each for group in groups for each in families(group)):
        labels = ", ".join(map(_code, family.labels))
        yield _code(family.name), family.kind, labels, family.unit, _modes_that_tell(family.fact), f"{family.about} {family.more}".rstrip()


def _modes_that_tell(fact: Fact) -> str:
    return _modes([spec for spec in MODES if fact in spec.fills])


def _modes_that_lose(reason: Lost) -> str:
    return _modes([spec for spec in MODES if reason in spec.losses | SWITCH_LOSSES])


def _modes(specs: Sequence[ModeSpec]) -> str:
    """List the modes; `ebpf` stands for all modes that are based on it."""
    if len(specs) == len(MODES):
        return "all"
    ebpf = [spec for spec in MODES if spec.loads_programs]
    rest = [spec.mode.value for spec in specs if spec not in ebpf]
    return ", ".join(map(_code, ["ebpf", *rest] if all(spec in specs for spec in ebpf) else [spec.mode.value for spec in specs]))


def _code(text: str) -> str:
    return f"`{text}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["".join(f"| {cell} " if cell else "| " for cell in row) + "|\n" for row in (head, *rows)]
    return "".join((lines[0], "|---" * len(head), "|\n", *lines[1:]))


def main() -> str | None:
    """Write the page, or say that it is not current."""
    parser = argparse.ArgumentParser(prog="python -m exporter.metrics.document", description="Write the tables of docs/metrics.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is not current")
    checking = parser.parse_args().check
    written = PAGE.read_text()
    page = rendered(written)
    if checking:
        return f"not current: {PAGE.name}; write it with: python -m exporter.metrics.document" if page != written else None
    PAGE.write_text(page)
    return None


if __name__ == "__main__":
    sys.exit(main())
