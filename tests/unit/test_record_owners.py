"""User and owner of single records: what is known when they are published."""

from __future__ import annotations

import pytest

from exporter.attribution.owners import Owners
from exporter.attribution.who import who
from exporter.model.owner import ContainerName
from exporter.records import encoding
from exporter.records.attributed import ADDED, attributed
from exporter.records.hub import Hub
from exporter.records.record import Record
from tests.unit.handler_child import record
from tests.unit.kubelet_layout import FakePod

_POD = FakePod("shop", "cart-0", "web")
_CONTAINER = b"/system.slice/docker-%s.scope" % (b"ab" * 32)


class _Names:
    """Names that come when they are put here."""

    name = ContainerName()
    asked = 0

    def find(self, container_id: str, pod_uid: str) -> ContainerName:
        self.asked += 1
        return self.name


@pytest.fixture
def names() -> _Names:
    return _Names()


@pytest.fixture
def hub(names: _Names) -> Hub:
    hub = Hub(10)
    hub.who = who(Owners("pod", names), lambda uid: "unknown" if uid is None else f"u{uid}")
    return hub


def _added(record: Record) -> dict[str, str]:
    return {name: getattr(record, name) for name in ADDED if getattr(record, name)}


def test_records_have_user_and_owner(hub: Hub) -> None:
    """Whoever reads a record wants to know whom to ask; the other fields stay."""
    before = record(1, cgroup=b"/system.slice/cron.service", uid=7)
    hub.publish([before])
    (after,) = hub.recent()
    assert _added(after) == {"user": "u7", "owner_kind": "service", "unit": "cron.service"}
    assert {name for name in Record._fields if getattr(after, name) != getattr(before, name)} <= set(ADDED)


def test_what_is_not_known_is_empty(hub: Hub) -> None:
    """`unknown` could be the name of somebody; JSON has null."""
    hub.publish([record(1, cgroup=b"", uid=None)])
    (after,) = hub.recent()
    assert _added(after) == {}
    assert [encoding.as_json(after)[name] for name in ADDED] == [None] * len(ADDED)


def test_a_name_that_comes_late_is_empty_until_then(hub: Hub, names: _Names) -> None:
    """A record is not held back for a name; the kind is known at once, and so is a pod without its container."""
    both = [record(1, cgroup=_POD.path, uid=None), record(2, cgroup=_CONTAINER, uid=None)]
    hub.publish(both)
    names.name = ContainerName("shop", "cart-0")
    hub.publish(both[:1])
    names.name = ContainerName("shop", "cart-0", "web")
    hub.publish(both[:1])
    assert [_added(each) for each in hub.recent()] == [
        {"owner_kind": "pod"},
        {"owner_kind": "container"},
        {"owner_kind": "pod", "namespace": "shop", "pod": "cart-0"},
        {"owner_kind": "pod", "namespace": "shop", "pod": "cart-0", "container": "web"},
    ]


def test_a_batch_asks_once_for_each_owner(names: _Names) -> None:
    """A burst comes from one owner, and each question costs more than the rest of a record."""
    find = who(Owners("pod", names), str)
    attributed([record(number, cgroup=_CONTAINER) for number in range(500)], find)
    assert names.asked == 1


@pytest.mark.parametrize("sent", ["two\nlines", "\x1b[31m", "\u202e"])
def test_hostile_labels_are_not_read(sent: str) -> None:
    """What an exporter sends is printed by snoop; that must not command the terminal."""
    with pytest.raises(ValueError, match=r"."):
        encoding.read(encoding.as_json(record(1)) | {"unit": sent})
