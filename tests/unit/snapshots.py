"""Snapshots made by hand, through the ledger as the supervisor makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from exporter.config.options import Config
from exporter.model import NS, Gauges, Lost, Mode, Outcome, SwitchReason, lifetimes
from exporter.model.counts import Breakdown, Counts, ProcessCounts
from exporter.model.dimensions import COMM, OWNER, OWNER_COMM, PARENT, SPAWNER, USER, Dimension
from exporter.model.failures import FAILURES
from exporter.model.ledger import Ledger
from exporter.model.owner import UNKNOWN, Owner
from exporter.records.hub import Latencies
from exporter.supervision.completeness import Sample
from exporter.supervision.selector import ModeStatus
from exporter.supervision.snapshot import Snapshot

CONFIG = Config()
OWNERS = {Owner("service", "cron.service"): 40, Owner("pod", "", "shop", "cart-0", "web"): 8, UNKNOWN: 1}
BUCKETS = len(CONFIG.runtime_scale.bounds_ns) + 1
PROGRAMS = ("on_exec", "on_exit", "on_free", "on_newtask", "on_signal")
OPTIONAL = ("on_execve_32", "on_execveat_32", "on_execve", "on_execveat", "on_clone", "on_oom_kill")
"""Programs that not every kernel lets attach."""


def ended(n: int, outcome: Outcome = Outcome.OK, *, execs: int = 0, bucket: int = 3) -> ProcessCounts:
    """So many short processes, each of 0.75 ms and 0.25 ms of CPU."""
    counts = ProcessCounts(short_exits=n, execs=execs, runtime_ns=n * 750_000, cpu_ns=n * 250_000, short_cpu_ns=n * 250_000)
    counts.exits[list(Outcome).index(outcome)] = n
    counts.buckets = [n if number == bucket else 0 for number in range(BUCKETS)]
    counts.lifetimes = {lifetimes.buckets(lifetimes.COARSE).index_of(750_000): n}
    return counts


def by_parent(short_exits: Mapping[bytes, int], other: int = 0) -> Breakdown[bytes]:
    """So many short processes of each parent."""
    rows = {name: ProcessCounts(short_exits=n) for name, n in short_exits.items()}
    return Breakdown(rows, ProcessCounts(short_exits=other))


def by_owner(short_exits: Mapping[Owner, int]) -> dict[Dimension[Any], Breakdown[Any]]:
    """So many short processes of each owner, all of one user, command and spawner."""
    names: Mapping[Dimension[Any], Callable[[Owner, int], Any]] = {
        OWNER: lambda owner, _: owner,
        OWNER_COMM: lambda owner, n: (owner, b"comm-%d" % n),
        USER: lambda _, n: f"user-{n}",
        SPAWNER: lambda _, n: b"spawner-%d" % n,
    }
    return {dimension: Breakdown({name(owner, n): ended(n) for owner, n in short_exits.items()}) for dimension, name in names.items()}


def totalled(counts: Counts) -> Counts:
    """Make the total what the parts add up to."""
    comms = counts.of(COMM)
    counts.total = comms.other.copy()
    for each in comms.rows.values():
        counts.total.add(each)
    return counts


def snapshot(
    counts: Counts,
    gauges: Gauges | None = None,
    *,
    caps: Mapping[Dimension[Any], int] | None = None,
    mode: Mode | None = Mode.EBPF_CORE,
    sample: Sample | None = None,
    burst: Counts | None = None,
) -> Snapshot:
    """What a scrape would show of these counts, with no series held back; or, if a burst follows, all of them."""
    times = [0]
    ledger = Ledger(caps or CONFIG.caps, NS if burst is not None else 0, lambda: times[-1])
    for each in (counts, burst or Counts()):
        ledger.absorb(each)
    times.append(NS)
    switches = {(to, reason): 0 for to in Mode for reason in SwitchReason}
    if mode is not None:
        switches[mode, SwitchReason.START] = 1
    return Snapshot(
        view=ledger.view(Counts()),
        gauges=gauges or Gauges(),
        mode=mode,
        why="",
        modes={each: ModeStatus(each not in (Mode.NETLINK, Mode.EBPF_BCC), "") for each in Mode},
        degraded=False,
        switches=switches,
        sample=sample,
        last_minute=sample,
        host_cpus=2,
        records_dropped={("reader", "full"): counts.records_dropped},
        events_dropped={},
        latency_buckets=list(range(len(Latencies.BOUNDS_NS) + 1)),
        latency_sum_ns=7 * NS,
    )


def ordinary() -> Snapshot:
    """A build server in `ebpf_core`, all gauges there."""
    asleep = ended(1, Outcome.SIGNAL)
    asleep.add(
        ProcessCounts(exits=[0, 0, 1, 0], runtime_ns=90 * NS, cpu_ns=5_000_000, buckets=[int(number == 18) for number in range(BUCKETS)])
    )
    comms = {b"cc1": ended(40, execs=40), b"sh": ended(3, Outcome.ERROR, execs=60), b"sleep": asleep, b'a"b\\c\n': ended(1)}
    counts = totalled(
        Counts(
            by={COMM: Breakdown(comms, ended(4, bucket=0)), PARENT: by_parent({b"make": 40, b"sh": 5}, 4)} | by_owner(OWNERS),
            forks=55,
            threads=7,
            core_dumps=1,
            signals={9: 1, 15: 1, 17: 46, 34: 2, 64: 1},
            failures={failure: n for n, failure in enumerate(FAILURES)},
            lost={Lost.CPU_NEVER_CAME: 2},
            program_runs={name: n for n, name in enumerate(PROGRAMS, 1)},
            program_ns={name: 1500 * n for n, name in enumerate(PROGRAMS, 1)},
        )
    )
    return snapshot(counts, Gauges(short_exits={1: 5, 2: 12}), sample=Sample(kernel=64, observed=62))


def worst() -> Snapshot:
    """Every series that a host can make appear at once."""
    comms = {b"comm-%d" % number: ended(number + 1, list(Outcome)[number % 3]) for number in range(500)}
    parents = by_parent({b"parent-%d" % number: number + 1 for number in range(500)})
    signals = dict.fromkeys(range(1, 65), 1)
    counts = totalled(
        Counts(
            by={COMM: Breakdown(comms), PARENT: parents} | by_owner({Owner("service", f"unit-{n}.service"): n + 1 for n in range(200)}),
            signals=signals,
            lost=dict.fromkeys(Lost, 1),
            failures=dict.fromkeys(FAILURES, 1),
            program_runs=dict.fromkeys((*PROGRAMS, *OPTIONAL), 1),
            program_ns=dict.fromkeys((*PROGRAMS, *OPTIONAL), NS),
        )
    )
    busier = {b"burst-%d" % number: ended(9999) for number in range(9)}
    of_owners = by_owner({Owner("service", f"burst-{n}.service"): 9000 + n for n in range(9)})
    burst = totalled(Counts(by={COMM: Breakdown(busier), PARENT: by_parent(dict.fromkeys(busier, 9999))} | of_owners))
    return snapshot(counts, Gauges({1: 1}, 0.1), sample=Sample(2, 1), burst=burst)
