"""The tree of who starts what, and its forms: folded stacks, and lines for people."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count

from exporter.records.shown import stack
from exporter.records.stacks import NOTHING, OTHERS, Stack, Sums


class By(StrEnum):
    """What the width of a branch shows."""

    PROCESSES = "processes"
    CPU = "cpu"
    RUNTIME = "runtime"

    @property
    def of(self) -> Callable[[Sums], int]:
        """Return the function that picks it from sums: a number of processes, or nanoseconds."""
        return _PICKS[self]


_PICKS: dict[By, Callable[[Sums], int]] = {
    By.PROCESSES: lambda sums: sums.processes,
    By.CPU: lambda sums: sums.cpu_ns,
    By.RUNTIME: lambda sums: sums.runtime_ns,
}


@dataclass(slots=True, eq=False)
class Node:
    """A command name below its ancestors, with the sums of the processes of that stack and of all below."""

    name: bytes
    sums: Sums = NOTHING
    children: dict[bytes, Node] = field(default_factory=dict)

    def own(self) -> Sums:
        """Return the sums of the processes of this stack alone."""
        below = [each.sums for each in self.children.values()]
        return Sums(*(whole - sum(parts) for whole, *parts in zip(self.sums, *below, strict=True)))

    def largest_first(self, by: By) -> list[Node]:
        """Return the children, equal ones by name."""
        return sorted(self.children.values(), key=lambda each: (-by.of(each.sums), each.name))


def tree(sums: Mapping[Stack, Sums]) -> Node:
    """Return the root of all stacks. It has no name."""
    root = Node(b"")
    for names, more in sums.items():
        node = root
        node.sums = node.sums.plus(more)
        for name in names:
            node = node.children.get(name) or node.children.setdefault(name, Node(name))
            node.sums = node.sums.plus(more)
    return root


def pruned(root: Node, most: int, by: By) -> tuple[Node, bool]:
    """Return a copy with the `most` largest nodes, and whether there were more. What is cut off is a child `OTHERS` of its parent."""
    copy = Node(root.name, root.sums)
    order = count()  # nodes do not compare
    waiting = [(0, next(order), root, copy)]
    kept, is_cut = 0, False
    while waiting:
        _, _, node, mine = heapq.heappop(waiting)
        for child in node.largest_first(by):
            if kept < most:
                kept += 1
                made = mine.children[child.name] = Node(child.name, child.sums)
                heapq.heappush(waiting, (-by.of(child.sums), next(order), child, made))
            else:
                others = mine.children.setdefault(OTHERS, Node(OTHERS))
                others.sums = others.sums.plus(child.sums)
                is_cut = True
    return copy, is_cut


def folded(sums: Mapping[Stack, Sums], by: By) -> Iterator[str]:
    """Yield lines for flamegraph.pl and speedscope: names, `;` between them, and the number. CPU and runtime are in microseconds."""
    for names, each in sorted(sums.items()):
        value = by.of(each) if by is By.PROCESSES else round(by.of(each) / 1000)
        if value:
            yield f"{stack(names)} {value}"
