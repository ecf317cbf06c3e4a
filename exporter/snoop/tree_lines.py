"""Formats the tree of who starts what as lines for people, as pstree does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from exporter.records import shown
from exporter.records.stacks import Stack, Sums
from exporter.records.tree import By, Node, pruned, tree

_MOST = 1000
"""Largest branches that are printed."""
_HEADER = f"{'PROCESSES':>9} {'OWN':>9} {'RUNTIME':>13} {'CPU':>13}  NAME"


def lines(sums: Mapping[Stack, Sums]) -> Iterator[str]:
    """Yield a line for each name below its ancestors, the most frequent first; all numbers but OWN include what is below."""
    yield _HEADER
    root, _ = pruned(tree(sums), _MOST, By.PROCESSES)
    yield from _below(root, "")
    yield _line(root.sums, root.sums.processes, "total")


def _below(node: Node, margin: str) -> Iterator[str]:
    children = node.largest_first(By.PROCESSES)
    for child in children:
        is_last = child is children[-1]
        yield _line(child.sums, child.own().processes, f"{margin}{'`-' if is_last else '|-'}{shown.name(child.name)}")
        yield from _below(child, f"{margin}{'  ' if is_last else '| '}")


def _line(sums: Sums, own: int, name: str) -> str:
    cpu = None if sums.cpu_unknown == sums.processes else sums.cpu_ns
    return f"{sums.processes:>9} {own:>9} {shown.span(sums.runtime_ns):>13} {shown.span(cpu):>13}  {name}"
