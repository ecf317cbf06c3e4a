"""From origins to breakdowns by parent, spawner, user and owner."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from exporter.attribution.attributor import MAX_KEYS, Attributor, By
from exporter.model.dimensions import BY_ORIGIN, COMM, OWNER, OWNER_COMM, PARENT, SPAWNER, USER, Dimension
from exporter.model.origins import MAX_ORIGINS, Origin, Origins
from exporter.model.owner import UNKNOWN, Owner

CRON = Owner("service", "cron.service")
WEB = Owner("pod", "", "shop", "cart-0", "web")
SYSTEM = Owner("system")
OWNERS = {b"/cron": CRON, b"/web": WEB, b"/": SYSTEM, b"": UNKNOWN}


def origin(cgroup: bytes = b"/cron", uid: int | None = 0, comm: bytes = b"true", parent: bytes = b"sh", spawner: bytes = b"cron") -> Origin:
    return Origin(cgroup, uid, comm, parent, spawner)


def counted(*rows: tuple[Origin, int, int]) -> Origins:
    origins = Origins()
    for each in rows:
        origins.count(*each)
    return origins


def attributor(wanted: Any = BY_ORIGIN, **late: Owner) -> Attributor:
    """Users are called by their number. Owners in `late` come when they are put there."""
    return Attributor(lambda path: OWNERS.get(path) or late.get(path.decode()), lambda uid: "unknown" if uid is None else f"u{uid}", wanted)


def short(by: By, dimension: Dimension[Any]) -> dict[Any, int]:
    return {key: row.short_exits for key, row in by[dimension].rows.items()}


def test_each_dimension() -> None:
    """One process of each kind is in one row of each."""
    by = attributor().attribute(
        counted((origin(), 3, 1), (origin(b"/web", 1000, b"curl", b"probe", b"kubelet"), 2, 0), (origin(comm=b"sh"), 1, 0))
    )
    assert short(by, PARENT) == {b"sh": 4, b"probe": 2}
    assert short(by, SPAWNER) == {b"cron": 4, b"kubelet": 2}
    assert short(by, USER) == {"u0": 4, "u1000": 2}
    assert short(by, OWNER) == {CRON: 4, WEB: 2}
    assert short(by, OWNER_COMM) == {(CRON, b"true"): 3, (WEB, b"curl"): 2, (CRON, b"sh"): 1}
    assert by[OWNER].rows[CRON].failures() == 1


def test_long_processes_that_failed_are_in_owners_alone() -> None:
    """They are not short, so no other family counts them."""
    by = attributor().attribute(counted((origin(), 0, 5)))
    assert by[OWNER].rows[CRON].failures() == 5
    assert [by[each].rows for each in (PARENT, SPAWNER, USER, OWNER_COMM)] == [{}] * 4


def test_an_owner_is_waited_for() -> None:
    """A container's name may come seconds after its first process; nothing is counted twice meanwhile."""
    owners: dict[str, Owner] = {}
    attribute = Attributor(lambda path: owners.get(path.decode()), str, BY_ORIGIN).attribute
    first = counted((origin(b"/late"), 3, 1))
    first.count_cgroup(b"/late", 700, 2)
    by = attribute(first)
    assert (short(by, OWNER), short(by, PARENT)) == ({}, {b"sh": 3})
    by = attribute(counted((origin(b"/late"), 1, 0)))
    assert (short(by, OWNER), short(by, PARENT)) == ({}, {b"sh": 1})
    owners["/late"] = WEB
    by = attribute(Origins())
    assert (short(by, OWNER), short(by, PARENT)) == ({WEB: 4}, {})
    found = by[OWNER].rows[WEB]
    assert (found.short_cpu_ns, found.oom_kills, found.failures()) == (700, 2, 1)
    assert short(attribute(Origins()), OWNER) == {}


def test_what_is_not_wanted_is_left_out() -> None:
    """A dimension that is switched off costs nothing in the ledger."""
    by = attributor({PARENT}).attribute(counted((origin(), 3, 1)))
    assert set(by) == {COMM, PARENT}


def test_holders() -> None:
    """Who could flood the metrics with names: a container or service, else a user. Of root's nothing is limited."""
    by = attributor().attribute(
        counted(
            (origin(comm=b"in-pod", cgroup=b"/web", uid=0), 1, 0),
            (origin(comm=b"user's", cgroup=b"/", uid=1000), 1, 0),
            (origin(comm=b"root's", cgroup=b"/", uid=0), 1, 0),
            (origin(comm=b"nobody's", cgroup=b"", uid=None), 1, 0),
        )
    )
    assert by[COMM].holders == {b"in-pod": WEB, b"user's": 1000, b"root's": None, b"nobody's": None}


NAMES = st.sampled_from([b"a", b"b", b"other"])
ORIGINS = st.builds(Origin, st.sampled_from([*OWNERS, b"/late"]), st.sampled_from([None, 0, 1000]), NAMES, NAMES, NAMES)


@given(st.lists(st.tuples(ORIGINS, st.integers(0, 3), st.integers(0, 3)), max_size=30), st.integers(0, 3))
def test_every_family_adds_up_to_the_whole(rows: list[tuple[Origin, int, int]], unkept: int) -> None:
    """Whatever comes, in one drain or two, with owners known late."""
    late: dict[str, Owner] = {}
    attribute = Attributor(lambda path: OWNERS.get(path) or late.get(path.decode()), str, BY_ORIGIN).attribute
    origins = counted(*rows)
    origins.other.add(unkept, 0)
    first = attribute(origins)
    late["/late"] = WEB
    last = attribute(Origins())
    whole = unkept + sum(short_exits for _, short_exits, _ in rows)
    for dimension in BY_ORIGIN:
        parts = (by[dimension].other.short_exits + sum(short(by, dimension).values()) for by in (first, last))
        assert sum(parts) == whole


def test_origins_without_end_are_bounded() -> None:
    """What does not fit is counted where nothing is lost: in `other`."""
    origins = Origins()
    for number in range(MAX_ORIGINS + 10):
        origins.count(origin(comm=b"c%d" % number), 1 + (number == MAX_ORIGINS - 1), 0)
    assert (len(origins.rows), origins.other.short_exits) == (MAX_ORIGINS, 10)
    by = attributor().attribute(origins)
    for dimension in BY_ORIGIN:
        assert sum(short(by, dimension).values()) + by[dimension].other.short_exits == MAX_ORIGINS + 11
    assert len(by[OWNER_COMM].rows) == MAX_KEYS
    assert short(by, OWNER_COMM)[CRON, b"c%d" % (MAX_ORIGINS - 1)] == 2, "the largest is kept apart, wherever it comes"
