"""The tables of docs/metrics.md, made of the code."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Any, TypeVar

from docs.marks import code, table
from exporter.config.options import Config
from exporter.metrics.catalogue import (
    DROPS,
    EVENT_DROPS,
    SIGNAL_NAMES,
    TRACKED,
    DetectionMetrics,
    EventMetrics,
    ExporterMetrics,
    Family,
    HandlerMetrics,
    ProcessMetrics,
    TotalMetrics,
    by_dimension,
)
from exporter.model import Lost, Outcome, SwitchReason
from exporter.model.dimensions import DIMENSIONS, Dimension
from exporter.model.facts import Fact
from exporter.supervision.modes import MODES, SWITCH_LOSSES, ModeSpec

E = TypeVar("E", bound=StrEnum)


def blocks() -> dict[str, str]:
    """What belongs between the marks, by the name in the mark."""
    groups = {
        "whole": families(TotalMetrics),
        "by_dimension": (*(by_dimension(each, measure) for each in DIMENSIONS for measure in each.measures), TRACKED),
        "detection": families(DetectionMetrics),
        "events": families(EventMetrics),
        "handlers": families(HandlerMetrics),
        "exporter": (*families(ExporterMetrics), *families(ProcessMetrics)),
    }
    dimensions = ((code(each.name), each.about, ", ".join(map(code, each.labels)), _cap(each)) for each in DIMENSIONS)
    causes = ((code(reason), _modes_that_lose(reason), about) for reason, about in meanings(Lost))
    event_drops = ((code(consumer), code(reason), about) for (consumer, reason), about in EVENT_DROPS.items())
    drops = ((code(consumer), code(reason), about) for (consumer, reason), about in DROPS.items())
    return {
        **{name: table(("metric", "type", "labels", "unit", "modes", "meaning"), _rows(group)) for name, group in groups.items()},
        "dimensions": table(("dimension", "broken down by", "labels", "series at most, then `other`"), dimensions),
        "outcomes": table(("`outcome`", "meaning"), ((code(outcome), about) for outcome, about in meanings(Outcome))),
        "signals": f"`signal` is one of {', '.join(map(code, SIGNAL_NAMES))}.\n",
        "switches": table(("`reason`", "meaning"), ((code(reason), about) for reason, about in meanings(SwitchReason))),
        "event_drops": table(("`consumer`", "`reason`", "meaning"), event_drops),
        "drops": table(("`consumer`", "`reason`", "meaning"), drops),
        "losses": table(("`reason`", "modes", "what is lost"), causes),
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


def _rows(families: Iterable[Family]) -> Iterator[Sequence[str]]:
    for family in families:
        labels = ", ".join(map(code, family.labels))
        yield code(family.name), family.kind, labels, family.unit, modes_that_tell(family.facts), f"{family.about} {family.more}".rstrip()


def _cap(dimension: Dimension[Any]) -> str:
    return f"{Config().value(dimension.cap)}, or {code(dimension.cap)}"


def modes_that_tell(facts: Iterable[Fact]) -> str:
    """List the modes that fill what shows these facts."""
    return _modes([spec for spec in MODES if spec.fills.keys() >= set(facts)])


def _modes_that_lose(reason: Lost) -> str:
    return _modes([spec for spec in MODES if reason in spec.losses | SWITCH_LOSSES])


def _modes(specs: Sequence[ModeSpec]) -> str:
    """List the modes; `ebpf` stands for all modes that are based on it."""
    if len(specs) == len(MODES):
        return "all"
    ebpf = [spec for spec in MODES if spec.loads_programs]
    rest = [spec.mode.value for spec in specs if spec not in ebpf]
    return ", ".join(map(code, ["ebpf", *rest] if all(spec in specs for spec in ebpf) else [spec.mode.value for spec in specs]))
