"""A source that watches through the kernel's messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from exporter.kernel import netlink_sockets
from exporter.kernel.procfs import Procfs
from exporter.model.counts import Counts
from exporter.model.dimensions import COMM
from exporter.sources.netlink.source import NetlinkSource
from tests.kernel.programs import SCALE, Program, until

_refusal = netlink_sockets.refusal(Procfs())
needs_netlink = pytest.mark.skipif(_refusal is not None, reason=_refusal or "")


@contextmanager
def following(*, standby: bool = False) -> Iterator[NetlinkSource]:
    source = NetlinkSource(SCALE, Procfs())
    source.start(standby=standby)
    try:
        yield source
    finally:
        source.stop()


def settled(source: NetlinkSource, program: Program, ends: int) -> Counts:
    """The counts once so many ends of a program are in."""
    return until(source.peek, lambda counts: sum(counts.of(COMM).row(program.comm).exits) >= ends)
