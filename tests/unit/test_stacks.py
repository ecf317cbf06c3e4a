"""Who starts what, from records: sums by stack, the tree, and its forms."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.model import NS
from exporter.records import stacks
from exporter.records.record import Record
from exporter.records.stacks import NOTHING, OTHERS, RecentStacks, Stack, Stacks, Sums
from exporter.records.tree import By, Node, folded, pruned, tree
from tests.unit.pages import HOSTILE, record

NAMES = st.sampled_from([b"sh", b"true", b"cron", b"other", b"a;b", b"a b", b"\xff\n"])
LINEAGES = st.lists(NAMES, max_size=5).map(tuple)


@st.composite
def batches(draw: st.DrawFn) -> list[Record]:
    made = st.tuples(NAMES, LINEAGES, st.none() | st.integers(0, 10**12), st.integers(0, 10**9))
    return [record(0, comm, lineage=lineage, cpu_ns=cpu, runtime_ns=ns) for comm, lineage, cpu, ns in draw(st.lists(made, max_size=40))]


def total(records: list[Record]) -> Sums:
    cpu = [each.cpu_ns for each in records if each.cpu_ns is not None]
    return Sums(len(records), sum(each.runtime_ns for each in records), sum(cpu), len(records) - len(cpu))


def whole(sums: Mapping[Stack, Sums]) -> Sums:
    added = NOTHING
    for each in sums.values():
        added = added.plus(each)
    return added


def check(node: Node) -> Sums:
    """Return what a tree adds up to, its own parts everywhere none below zero."""
    own = node.own()
    assert min(own) >= 0
    for child in node.children.values():
        own = own.plus(check(child))
    return own


@given(batches(), st.integers(1, 12), st.integers(1, 12), st.sampled_from(By))
def test_every_form_adds_up_to_the_records(records: list[Record], most: int, nodes: int, by: By) -> None:
    """Whatever is left out by name, no process is."""
    summed = Stacks(most)
    summed.add(records)
    sums = summed.sums()
    assert len(sums) <= most + 1
    assert whole(sums) == total(records)
    root = tree(sums)
    part, is_cut = pruned(root, nodes, by)
    assert root.sums == part.sums == check(root) == check(part) == total(records)
    assert is_cut or count(part) == count(root)
    assert count(part) <= 2 * nodes + 2
    assert sum(int(line.rpartition(" ")[2]) for line in folded(sums, By.PROCESSES)) == len(records)


def count(node: Node) -> int:
    return 1 + sum(map(count, node.children.values()))


@given(st.dictionaries(st.lists(st.binary(max_size=15) | st.sampled_from(HOSTILE), min_size=1, max_size=6).map(tuple), st.integers(1, 99)))
def test_folded_stacks_can_be_read(stacks: dict[Stack, int]) -> None:
    """Names with separators in them are one name: by the rules of flamegraph.pl, and without two stacks that look the same."""
    lines = list(folded({names: Sums(n) for names, n in stacks.items()}, By.PROCESSES))
    parsed = {tuple(match[1].split(";")): int(match[2]) for line in lines if (match := re.fullmatch(r"(.*) (\d+)", line))}
    assert len(parsed) == len(lines) == len(stacks)
    assert sorted(map(len, parsed)) == sorted(map(len, stacks))


def test_the_largest_branches_are_kept() -> None:
    """By what is asked for; the rest is in `other`, below the same parent."""
    root = tree({(b"cron", b"a"): Sums(5, 1, 9), (b"cron", b"b"): Sums(3, 1, 50), (b"ssh",): Sums(4, 1, 1)})
    part, is_cut = pruned(root, 3, By.PROCESSES)
    assert is_cut
    assert [(each.name, each.sums.processes) for each in part.children[b"cron"].largest_first(By.PROCESSES)] == [(b"a", 5), (OTHERS, 3)]
    part, _ = pruned(root, 3, By.CPU)
    assert [each.name for each in part.children[b"cron"].largest_first(By.CPU)] == [b"b", OTHERS]


def test_too_many_stacks_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any user can choose names."""
    summed = Stacks(2)
    summed.add([record(0, b"%d" % number, lineage=(b"sh",)) for number in range(10)])
    assert {names: each.processes for names, each in summed.sums().items()} == {(b"sh", b"0"): 1, (b"sh", b"1"): 1, (OTHERS,): 8}


def test_an_unknown_lineage() -> None:
    """The process is there, below what is not known."""
    summed = Stacks(2)
    summed.add([record(0, b"true")])
    assert list(summed.sums()) == [(b"unknown", b"true")]


def test_the_last_seconds() -> None:
    """Older ones are forgotten, with what was dropped then; a slice more may be there."""
    now = [0]
    recent = RecentStacks(lambda: now[0])
    for second in range(0, 700, 5):
        now[0] = second * NS
        recent.add([record(0, b"true")])
        recent.note_dropped(second)
    assert sum(each.processes for each in recent.within(300).sums.values()) in range(60, 65)
    assert recent.within(300).dropped in range(300, 325)
    assert sum(each.processes for each in recent.within(5).sums.values()) in range(1, 6)
    assert len(recent._slices) <= 300 * NS // stacks._SLICE_NS + 2
    now[0] = 2000 * NS
    assert recent.within(300) == ({}, 0)
