"""Who gets a series where there are not enough for all."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from exporter.model.activity import Busyness
from exporter.model.admission import Contender, Decision, Places, decide

PLACES = Places(60)


def key(name: str, events: int, failures: int = 0, holder: Hashable | None = None, *, settled: bool = True) -> Contender[str]:
    return Contender(name, (name,), Busyness(events, failures), holder, is_settled=settled)


def named(prefix: str, n: int, events: int, **others: Any) -> list[Contender[str]]:
    return [key(f"{prefix}{each:02}", events, **others) for each in range(n)]


def decided(growing: list[Contender[str]], newcomers: list[Contender[str]], lingering: int = 0) -> Decision[str]:
    return decide(PLACES, growing, lingering, newcomers)


def test_free_places_are_for_anyone_but_the_spare_ones() -> None:
    """The last tenth is kept for keys that become busy when all others are taken."""
    decision = decided(named("old", 50, 9), named("new", 10, 1))
    assert set(decision.admitted) == {"new00", "new01", "new02", "new03"}
    assert not decision.retired | decision.dropped


def test_a_plainly_busier_one_takes_a_spare_place() -> None:
    """More than twice as much and two more; the least active retires."""
    old = [*named("old", 53, 100), key("least", 10)]
    assert not decided(old, [key("new", 22)]).admitted
    decision = decided(old, [key("new", 23)])
    assert set(decision.admitted) == {"new"}
    assert decision.retired == {"least"}


def test_spare_places_run_out() -> None:
    """Six at once: for a retired series stays until all that it counted was scraped."""
    decision = decided(named("old", 54, 1), named("new", 9, 100))
    assert len(decision.admitted) == len(decision.retired) == 6
    assert not decided(named("old", 54, 1), named("new", 9, 100), lingering=6).admitted


def test_none_retires_before_it_was_shown() -> None:
    """A busier one comes at once all the same; the surplus retires later."""
    old = named("old", 54, 1, settled=False)
    decision = decided(old, [key("new", 100)])
    assert (set(decision.admitted), decision.retired) == ({"new"}, set())
    settled = [key("old00", 1), *old[1:], key("new", 100, settled=False)]
    assert decided(settled, []).retired == {"old00"}


def test_those_that_fail_have_a_share() -> None:
    """A crash loop is seldom the busiest, and is what somebody looks for."""
    busy = named("busy", 54, 1000)
    decision = decided(busy, [key("crashes", 3, failures=3), key("flaky", 9, failures=2)])
    assert set(decision.admitted) == {"crashes"}
    assert decision.retired == {"busy00"}


def test_those_that_fail_most_do_not_retire() -> None:
    """Not even for the busiest; but of those that fail, only a share is kept from it."""
    failing = named("fails", 15, 20, failures=20)
    busy = named("busy", 39, 1000)
    assert decided([*failing, *busy], [key("new", 5000)]).retired == {"busy00"}
    assert not decided([*failing, *busy], [key("crashes", 42, failures=42)]).admitted
    assert decided([*failing, *busy], [key("crashes", 43, failures=43)]).retired == {"busy00"}
    assert decided([*failing, *named("also", 39, 30, failures=10)], [key("new", 5000)]).retired == {"also00"}


def test_a_holder_may_use_what_nobody_else_wants() -> None:
    """On many hosts everything runs as root."""
    assert len(decided(named("root", 50, 9, holder=0), named("more", 9, 1, holder=0)).admitted) == 4


def test_others_come_before_a_holder_with_its_share() -> None:
    """However much busier its names are."""
    flood = named("flood", 50, 1000, holder=1000)
    decision = decided(flood, [*named("more", 9, 1000, holder=1000), *named("service", 3, 1, holder=0)])
    assert [each for each in decision.admitted if each.startswith("service")] == ["service00", "service01", "service02"]
    assert len(decision.admitted) == 4


def test_a_holder_with_more_than_its_share_makes_room() -> None:
    """One user's flood of busy names must not keep a quiet service's name out; and the flood leaves spare places for it."""
    flood = named("flood", 54, 1000, holder=1000)
    decision = decided(flood, [key("service", 1, holder=0)])
    assert (set(decision.admitted), decision.retired) == ({"service"}, {"flood00"})
    more = named("more", 9, 9000, holder=1000)
    assert len(decided(flood, more).admitted) == 3
    assert set(decided(flood, [*more, *named("service", 3, 1, holder=0)]).admitted) >= {"service00", "service01", "service02"}


def test_a_holder_with_its_share_displaces_only_its_own() -> None:
    """Half is a user's to share out among its names."""
    quiet = named("service", 24, 1, holder=0)
    decision = decided([*quiet, *named("flood", 30, 1000, holder=1000)], [key("more", 9000, holder=1000)])
    assert decision.retired == {"flood00"}


def test_who_is_idle_goes_first() -> None:
    """The one that has been idle for longest, at once."""
    idle = [Contender(f"idle{at}", (f"idle{at}",), Busyness(), last_ns=at, is_settled=True, is_idle=True) for at in (3, 1, 2)]
    decision = decided([*named("old", 51, 9), *idle], [key("new", 1), key("also", 1)])
    assert decision.dropped == {"idle1", "idle2"}
    assert set(decision.admitted) == {"new", "also"}
    assert not decision.retired


def test_who_retired_has_its_place_still() -> None:
    """It needs no spare one."""
    back = Contender("back", ("back",), Busyness(500), has_place=True)
    assert set(decided(named("old", 54, 1), [back, key("new", 500)], lingering=6).admitted) == {"back"}


def test_few_places() -> None:
    """With one or two, none is spare."""
    for cap in (1, 2):
        assert len(decide(Places(cap), [], 0, named("new", 9, 1)).admitted) == cap
    assert len(decide(Places(3), [], 0, named("new", 9, 1)).admitted) == 2
