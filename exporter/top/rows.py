"""The rows of the table: sums by name, or the tree of who starts what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from exporter.records.shown import name
from exporter.top.activity import Groups, Sum, by, by_stack
from exporter.top.state import NAMES, By, Sort, State

_MOST_IN_TREE = 1000

_VALUES: dict[Sort, Callable[[Sum], float]] = {
    Sort.RATE: lambda each: each.count,
    Sort.FAILED: lambda each: each.failed,
    Sort.CPU: lambda each: each.cpu_ns,
    Sort.P99: lambda each: each.quantile_ns(0.99) or 0,
}


@dataclass(slots=True)
class Row:
    name: str
    sum: Sum
    others: dict[By, str] = field(default_factory=dict)
    """Of each other kind of name the most frequent, with ` +N` if there are N more."""


def rows(groups: Groups, state: State) -> list[Row]:
    """Return all rows, sorted. Equal ones are sorted by name."""
    accepts = state.accepts()
    if state.by is By.TREE:
        return list(_tree(groups, state))
    found = by(groups, NAMES[state.by], accepts)
    value = _VALUES[state.sort]
    return [Row(name, each) for name, each in sorted(found.items(), key=lambda item: (-value(item[1]), -item[1].count, item[0]))]


def add_others(shown: Iterable[Row], groups: Groups, state: State) -> None:
    """Fill `others` of the rows that are shown."""
    if state.by is By.TREE:
        return
    accepts, own, others = state.accepts(), NAMES[state.by], [(each, of) for each, of in NAMES.items() if each is not state.by]
    counters = {row.name: {each: Counter[str]() for each, _ in others} for row in shown}
    for group, each in groups.items():
        if (mine := counters.get(own(group))) is not None and accepts(group):
            for other, of in others:
                mine[other][of(group)] += each.count
    for row in shown:
        row.others = {each: _most_frequent(counter) for each, counter in counters[row.name].items()}


def _most_frequent(counter: Counter[str]) -> str:
    first = counter.most_common(1)[0][0] if counter else ""
    return first if len(counter) < 2 else f"{first} +{len(counter) - 1}"


@dataclass(slots=True)
class _Node:
    sum: Sum = field(default_factory=Sum)
    children: dict[bytes, _Node] = field(default_factory=dict)


def _tree(groups: Groups, state: State) -> Iterator[Row]:
    """Yield a row for each command name below its ancestors; its sum includes what is below."""
    root, nodes = _Node(), 0
    for stack, each in by_stack(groups, state.accepts()):
        node = root
        for part in stack:
            if part not in node.children:
                if nodes >= _MOST_IN_TREE:
                    break
                nodes += 1
            node = node.children.setdefault(part, _Node())
            node.sum.add(each)
    yield from _below(root, "", _VALUES[state.sort])


def _below(node: _Node, margin: str, value: Callable[[Sum], float]) -> Iterator[Row]:
    children = sorted(node.children.items(), key=lambda item: (-value(item[1].sum), item[0]))
    for number, (part, child) in enumerate(children, 1):
        is_last = number == len(children)
        yield Row(f"{margin}{'`-' if is_last else '|-'}{name(part)}", child.sum)
        yield from _below(child, f"{margin}{'  ' if is_last else '| '}", value)
