"""The dimensions that processes are broken down by, and the measures that each carries. Each is declared once, here.

A source counts by a dimension's keys (`Counts.by`). The ledger, `/metrics`, docs/metrics.md and the page do the rest for every dimension
that is declared. Dimensions and measures are compared by identity, so that looking one up costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

from exporter.model import NS, OTHER, Outcome, comm_text
from exporter.model.counts import Key, ProcessCounts
from exporter.model.facts import Fact
from exporter.model.owner import Owner

Labels = tuple[str, ...]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Measure:
    """What is counted of each key of a dimension: a metric `shortproc_<dimension>_<name>`, a column on the page, or both."""

    name: str
    about: str
    """A noun phrase; a scrape shows it, with the dimension behind it."""
    unit: str
    heading: str
    """Of its column on the page."""
    values: Callable[[ProcessCounts], Sequence[float]]
    """One value, or one for each part; of a histogram, its sum."""
    label: str = ""
    """The label that tells its parts apart."""
    parts: tuple[str, ...] = ()
    is_histogram: bool = False
    is_native: bool = False
    """Whether the histogram is a native one, which has one series for each key."""
    option: str = ""
    """The option of the configuration that switches it on; always on without one."""
    fact: Fact = Fact.PROCESSES
    """What a mode must be able to tell to count it."""
    more: str = ""
    """What only docs/metrics.md says."""

    def whole(self, counts: ProcessCounts) -> float:
        """Return the sum of its parts."""
        return sum(self.values(counts))


@dataclass(frozen=True, slots=True)
class Ranking:
    """A table on the page: the keys with the most of the first column."""

    title: str
    columns: tuple[Measure, ...]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Dimension(Generic[Key]):
    """One way to break processes down. Each process belongs to one key, so that the rows add up to all processes."""

    name: str
    """As metrics have it: `shortproc_<name>_<measure>`."""
    about: str
    """What a key is, for `by ...`."""
    noun: str
    """What the page calls a key."""
    labels: Labels
    headings: Labels
    """Of its columns on the page."""
    labels_of: Callable[[Key], Labels]
    """A key as values of the labels, harmless to show; never the same for two keys."""
    cap: str
    """The option of the configuration that says how many keys have series at most; 0 switches the dimension off."""
    fact: Fact
    """What a mode must be able to tell to know the key of a process."""
    cells_of: Callable[[Labels], Labels] = tuple
    """The labels as cells of the page, one for each heading."""
    held: bool = True
    """Whether a new series is shown at 0 for `metrics.new_series_hold_seconds`."""
    measures: tuple[Measure, ...]
    rankings: tuple[Ranking, ...] = ()

    @property
    def other(self) -> Labels:
        """The labels of the row of all keys without series."""
        return (OTHER,) * len(self.labels)


NATIVE_ONLY = "A native histogram: only in protobuf, and not with `metrics.native_histograms: off`."

Tracked = Mapping[Dimension[Any], Collection[Any]]
"""Keys that have series."""

EXITS = Measure(
    name="exits",
    about="Processes that exited",
    unit="processes",
    heading="Exited",
    values=lambda counts: counts.exits,
    label="outcome",
    parts=tuple(Outcome),
)
SHORT_EXITS = Measure(
    name="short_exits",
    about="Short processes that exited",
    unit="processes",
    heading="Short",
    values=lambda counts: (counts.short_exits,),
)
FAILED_EXITS = Measure(
    name="failed_exits",
    about="Processes that exited with an error or were killed by a signal",
    unit="processes",
    heading="Failed",
    values=lambda counts: (counts.failures(),),
)
CPU = Measure(
    name="cpu_seconds",
    about="CPU time of exited processes in seconds",
    unit="seconds",
    heading="CPU s, all",
    values=lambda counts: (counts.cpu_ns / NS,),
    fact=Fact.CPU,
)
SHORT_CPU = Measure(
    name="short_cpu_seconds",
    about="CPU time of exited short processes in seconds",
    unit="seconds",
    heading="CPU s, short",
    values=lambda counts: (counts.short_cpu_ns / NS,),
    fact=Fact.CPU,
)
OWNER_CPU = replace(SHORT_CPU, fact=Fact.OWNER_CPU)
OOM_KILLS = Measure(
    name="oom_kills",
    about="Processes killed by the OOM killer",
    unit="processes",
    heading="OOM kills",
    values=lambda counts: (counts.oom_kills,),
    fact=Fact.OWNER_OOM_KILLS,
    more="Of any runtime, once they have exited.",
)
EXECS = Measure(
    name="execs",
    about="Successful execs",
    unit="execs",
    heading="Execs",
    values=lambda counts: (counts.execs,),
    fact=Fact.EXECS,
    more="The name is the one after the exec.",
)
RUNTIME = Measure(
    name="runtime_seconds",
    about="Runtimes of exited processes in seconds",
    unit="seconds",
    heading="Runtime s",
    values=lambda counts: (counts.runtime_ns / NS,),
    is_histogram=True,
    option="metrics.per_comm_histogram",
)
LIFETIME = replace(RUNTIME, name="lifetime_seconds", is_native=True, option="", more=NATIVE_ONLY)


def _comm(comm: bytes) -> Labels:
    return (comm_text(comm),)


def _text(text: str) -> Labels:
    return (text,)


def _owner(owner: Owner) -> Labels:
    return owner


def _owner_cells(labels: Labels) -> Labels:
    owner = Owner(*labels[: len(_OWNER_LABELS)])
    return (OTHER if owner.kind == OTHER else owner.text, owner.kind, *labels[len(_OWNER_LABELS) :])


def _owner_comm(key: tuple[Owner, bytes]) -> Labels:
    owner, comm = key
    return (*owner, comm_text(comm))


COMM = Dimension(
    name="comm",
    about="command name",
    noun="command",
    labels=("comm",),
    headings=("Name",),
    labels_of=_comm,
    cap="metrics.max_comms",
    fact=Fact.NAMES,
    measures=(EXITS, SHORT_EXITS, CPU, SHORT_CPU, EXECS, RUNTIME, LIFETIME),
    rankings=(
        Ranking("Commands with the most short processes", (SHORT_EXITS, EXITS, CPU)),
        Ranking("Commands with the most failed exits", (FAILED_EXITS, EXITS)),
        Ranking("Commands with the most CPU time in short processes", (SHORT_CPU, CPU, SHORT_EXITS)),
    ),
)
PARENT = Dimension(
    name="parent",
    about="command name of the parent",
    noun="parent",
    labels=("parent_comm",),
    headings=("Parent",),
    labels_of=_comm,
    cap="attribution.max_parents",
    fact=Fact.PARENTS,
    measures=(SHORT_EXITS,),
    rankings=(Ranking("Parents of the most short processes", (SHORT_EXITS,)),),
)
SPAWNER = Dimension(
    name="spawner",
    about="command name of the nearest ancestor that was not short-lived itself",
    noun="spawner",
    labels=("spawner",),
    headings=("Spawner",),
    labels_of=_comm,
    cap="attribution.max_spawners",
    fact=Fact.SPAWNERS,
    measures=(SHORT_EXITS,),
    rankings=(Ranking("Spawners of the most short processes", (SHORT_EXITS,)),),
)
USER = Dimension(
    name="user",
    about="user",
    noun="user",
    labels=("user",),
    headings=("User",),
    labels_of=_text,
    cap="attribution.max_users",
    fact=Fact.USERS,
    measures=(SHORT_EXITS,),
    rankings=(Ranking("Users with the most short processes", (SHORT_EXITS,)),),
)
_OWNER_LABELS = ("kind", "unit", "namespace", "pod", "container")
_OWNER_HEADINGS = ("Owner", "Kind")
OWNER = Dimension(
    name="owner",
    about="owner: systemd unit, container or pod",
    noun="owner",
    labels=_OWNER_LABELS,
    headings=_OWNER_HEADINGS,
    cells_of=_owner_cells,
    labels_of=_owner,
    cap="attribution.max_owners",
    fact=Fact.OWNERS,
    measures=(SHORT_EXITS, FAILED_EXITS, OWNER_CPU, OOM_KILLS),
    rankings=(
        Ranking("Owners of the most short processes", (SHORT_EXITS, FAILED_EXITS, OWNER_CPU)),
        Ranking("Owners of the most failed exits", (FAILED_EXITS, OOM_KILLS, SHORT_EXITS)),
    ),
)
OWNER_COMM = Dimension(
    name="owner_comm",
    about="owner and command name",
    noun="command of an owner",
    labels=(*_OWNER_LABELS, "comm"),
    headings=(*_OWNER_HEADINGS, "Name"),
    cells_of=_owner_cells,
    labels_of=_owner_comm,
    cap="attribution.max_owner_comms",
    fact=Fact.OWNERS,
    measures=(SHORT_EXITS,),
)

BY_ORIGIN: tuple[Dimension[Any], ...] = (PARENT, SPAWNER, USER, OWNER, OWNER_COMM)
"""Those that `exporter/attribution` makes of origins."""
DIMENSIONS: tuple[Dimension[Any], ...] = (COMM, *BY_ORIGIN)
"""In the order of `/metrics`."""
