"""User and owner of single processes, as records have them: what is known at that moment."""

from __future__ import annotations

from collections.abc import Callable

from exporter.attribution.owners import Owners
from exporter.model.owner import UNKNOWN

_NOT_KNOWN = ("",) * len(UNKNOWN)


def who(owners: Owners, name_of: Callable[[int | None], str]) -> Callable[[int | None, bytes], tuple[str, ...]]:
    """Return a function that returns the user and the labels of the owner of a process, by its user ID and the path of its cgroup.

    Names that are not known are empty. It does not block, and is not safe for concurrent use.
    """

    def find(uid: int | None, cgroup: bytes) -> tuple[str, ...]:
        owner, _ = owners.so_far(cgroup)
        return ("" if uid is None else name_of(uid), *(_NOT_KNOWN if owner is UNKNOWN else owner))

    return find
