"""Reads for whom processes ran from the maps of origins and of counts by cgroup."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from exporter.kernel.bpf import BpfMap
from exporter.kernel.layout import SPAWNER_DEEP, SPAWNER_UNKNOWN, Shared
from exporter.model.origins import DEEP, UNKNOWN, Origin, Origins

_KEY = struct.Struct("=QII16s16s16s")
"""`OriginKey`, which ctypes would decode many times slower."""
_COUNTS = struct.Struct("=QQ")
"""`OriginRow`, and `CgroupCounts`."""
_OTHER = Shared.other_origin.offset
_SPAWNERS = {SPAWNER_DEEP: DEEP, SPAWNER_UNKNOWN: UNKNOWN}


class OriginReader:
    """Takes rows out of retired maps. Not safe for threads."""

    def __init__(self, maps: Mapping[str, BpfMap], path_of_cgroup: Callable[[int], bytes]) -> None:
        self._maps = maps
        self._path = path_of_cgroup
        self._origins = Origins()
        self._others = (0, 0, 0, 0)

    def read(self, half: str) -> None:
        """Empty the maps of one half, `a` or `b`, which no program uses any more. Raises `OSError`."""
        origins, cgroups = self._maps[f"origins_{half}"].pop_all(), self._maps[f"cgroup_counts_{half}"].pop_all()
        for key, (short_exits, failed_exits) in zip(origins.keys, _COUNTS.iter_unpack(origins.values), strict=True):
            cgroup, uid, state, *comms = _KEY.unpack(key)
            comm, parent, spawner = (each.rstrip(b"\0") for each in comms)
            self._origins.count(Origin(self._path(cgroup), uid, comm, parent, _SPAWNERS.get(state, spawner)), short_exits, failed_exits)
        for key, counts in zip(cgroups.keys, _COUNTS.iter_unpack(cgroups.values), strict=True):
            self._origins.count_cgroup(self._path(int.from_bytes(key[:8], "little")), *counts)

    def pop(self, shared: bytes | bytearray) -> Origins:
        """Return what was read, with the growth of what found no room, and start from zero. `shared` is the value of that map."""
        others = struct.unpack_from("=4Q", shared, _OTHER)
        short_exits, failed_exits, *of_cgroup = (now - before for now, before in zip(others, self._others, strict=True))
        self._others = others
        origins, self._origins = self._origins, Origins()
        origins.other.add(short_exits, failed_exits)
        origins.other_cgroup.add(*of_cgroup)
        return origins
