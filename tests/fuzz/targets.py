"""One function for each kind of bytes that others choose. It reads them with the exporter's own code, and raises if that misbehaves.

Errors that the code declares (`ValueError` of a parser, `BadRequest`, ...) are right answers. Whatever else is raised is a finding, as is
an assertion here, and an input that takes seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import struct
from collections.abc import Callable
from functools import cache, partial
from http import HTTPStatus

from exporter.attribution.owners import Owners
from exporter.attribution.paths import place
from exporter.config import loading
from exporter.config.options import Config, Records
from exporter.config.problems import ConfigError
from exporter.kernel.layout import (
    BCC_RECORDS_BYTES,
    EXE_LEN,
    PERF_BYTES_LEAST,
    RECORD_WITH_EXE_FORMAT,
    ArgumentsSlot,
    Exe,
    RecordLayout,
    RecordWithExe,
)
from exporter.kernel.proc_connector import MESSAGE, acknowledged
from exporter.kernel.procfs import Procfs, parse_cgroup, parse_stat, parse_tgid
from exporter.kernel.taskstats import decode
from exporter.metrics.formats import FORMATS
from exporter.model import NS, Lost, Mode, RuntimeScale
from exporter.model.arguments import MOST_BYTES, Arguments
from exporter.model.owner import ContainerName
from exporter.records.arguments import reducer
from exporter.records.encoding import line
from exporter.records.hub import Hub
from exporter.records.shown import command_line
from exporter.sources.ebpf.exec_slots import ARGUMENTS_BYTES, EXE_BYTES, ExecSlots
from exporter.sources.ebpf.lineages import Lineages
from exporter.sources.ebpf.perfbuf import PerfBuffers
from exporter.sources.ebpf.record_reader import records
from exporter.sources.ebpf.ringbuf import Ring
from exporter.sources.netlink.thread_groups import Groups
from exporter.sources.tally import Tally
from exporter.supervision.reload import LastReload
from exporter.web import api, webconfig
from exporter.web.accept import accepts_gzip, negotiate
from exporter.web.busiest import busiest
from exporter.web.messages import BadRequest, Response, pop_request
from exporter.web.pages import Pages
from exporter.web.policy import AccessPolicy
from exporter.web.site import Site
from exporter.web.stream import Streams
from tests.unit import pages, snapshots
from tests.unit.netlink_messages import FAMILY, decoded, feed

Target = Callable[[bytes], object]
TARGETS: dict[str, Target] = {}
"""By the name of its corpus."""

_LONGEST_MESSAGE = 2000


def _target(function: Target) -> Target:
    TARGETS[function.__name__] = function
    return function


@_target
def connector(data: bytes) -> None:
    """Read datagrams of the proc connector, the last of which may be cut, and count them."""
    datagrams = [data[at : at + MESSAGE.size] for at in range(0, len(data), MESSAGE.size)] or [b""]
    assert len(decoded(datagrams)) == len(datagrams)
    acknowledged(datagrams[0], 77)
    tally = Tally(RuntimeScale(NS, (NS,)))
    groups = Groups(tally, Procfs("/nonexistent"))
    feed(groups, datagrams)
    groups.reconcile(2**63)
    groups.finish(2**64)
    tally.flush(Mode.NETLINK)
    counts = tally.drain()
    assert min(counts.forks, counts.threads, counts.total.runtime_ns, *counts.total.exits, *counts.lost.values()) >= 0
    assert sum(counts.total.exits) + counts.forks + counts.threads + counts.total.execs <= 2 * len(datagrams)


@_target
def taskstats(data: bytes) -> None:
    """Read a message of taskstats, and the exit of its thread without an event."""
    stats = decode(memoryview(data), FAMILY)
    if stats is None or isinstance(stats, Lost):
        return
    assert b"\0" not in stats.comm
    tally = Tally(RuntimeScale(NS, (NS,)))
    groups = Groups(tally, Procfs("/nonexistent"), taskstats=True)
    groups.waiting.put(stats)
    groups.reconcile(2**63, lost=True)
    assert sum(tally.drain().total.exits) <= 1


@_target
def ring(data: bytes) -> None:
    """Read records of a ring buffer that have their paths with them."""
    memory = _memory("ring", 2 * mmap.PAGESIZE + 2 * BCC_RECORDS_BYTES)
    _write(memory, 2 * mmap.PAGESIZE, data)
    _write(memory, mmap.PAGESIZE, struct.pack("=Q", len(data)))
    _write(memory, 0, bytes(8))
    buffer = Ring(memory, Lineages())
    try:
        _publish(buffer.pop())
        _publish(buffer.pop())
    finally:
        buffer.close()


@_target
def perf(data: bytes) -> None:
    """Read messages of a perf buffer, which may wrap around."""
    memory = _memory("perf", mmap.PAGESIZE + PERF_BYTES_LEAST)
    data = data[:PERF_BYTES_LEAST]
    begin = PERF_BYTES_LEAST - 1000
    first = data[: PERF_BYTES_LEAST - begin]
    _write(memory, mmap.PAGESIZE + begin, first)
    _write(memory, mmap.PAGESIZE, data[len(first) :])
    _write(memory, 1024, struct.pack("=QQ", begin + len(data), begin))
    buffers = PerfBuffers([memory], PERF_BYTES_LEAST, count_lost=True)
    try:
        while popped := buffers.pop():
            _publish(popped)
    finally:
        buffers.close()


@_target
def exec_slots(data: bytes) -> None:
    """Read what the program at the exec wrote: the path, and then the arguments."""
    exes, arguments_slots = _memory("exes", EXE_BYTES), _memory("arguments", ARGUMENTS_BYTES)
    _write(exes, Exe.path.offset, data[:EXE_LEN].ljust(EXE_LEN, b"\0"))
    rest = data[EXE_LEN:]
    _write(arguments_slots, ArgumentsSlot.size.offset, struct.pack("=Q", len(rest)))
    _write(arguments_slots, ArgumentsSlot.text.offset, rest[:MOST_BYTES].ljust(MOST_BYTES, b"\0"))
    slots = ExecSlots(exes, 0, arguments_slots)
    try:
        raw = bytes(RecordLayout(has_exe=1, comm=b"tool"))
        _publish(slots.add([struct.unpack(f"={RECORD_WITH_EXE_FORMAT}", raw.ljust(ctypes.sizeof(RecordWithExe), b"\0"))[:-1]]))
    finally:
        slots.close()


@_target
def arguments(data: bytes) -> None:
    """Redact arguments, and reduce them to names."""
    given = Arguments(data[:MOST_BYTES], cut=len(data) > MOST_BYTES)
    for reduce in _reducers():
        reduced = reduce(given)
        assert reduced.cut is given.cut
        assert command_line(reduced.text, reduced.cut).isprintable()


@_target
def stat(data: bytes) -> None:
    """Read files of `/proc/PID`."""
    for parse in (parse_stat, parse_tgid, partial(parse_cgroup, hierarchy_id=0)):
        with contextlib.suppress(ValueError):
            parse(data)


@_target
def cgroup(data: bytes) -> None:
    """Find the owner of a cgroup."""
    placed = place(data)
    assert all(len(label) <= 4 * 255 and label.isprintable() for label in placed.owner)
    for kind in ("pod", "workload", "none"):
        owner, _ = Owners(kind, _Names()).so_far(data)
        assert all(label.isprintable() for label in owner)


@_target
def configuration(data: bytes) -> None:
    """Load a configuration file."""
    _load(data, loading.load)


@_target
def web_configuration(data: bytes) -> None:
    """Load a web configuration file."""
    _load(data, lambda path: webconfig.weakness(webconfig.WebConfig(), loading.read(path, webconfig.read)))


@_target
def requests(data: bytes) -> None:
    """Answer the requests of a connection."""
    received = bytearray(data)
    with contextlib.suppress(BadRequest):
        while request := pop_request(received):
            response = _site().answer(request, "127.0.0.1", AccessPolicy())
            _check(response)
            for _ in response.pieces or ():
                pass
            if response.stream is not None:
                response.stream.close()


@_target
def accept(data: bytes) -> None:
    """Negotiate the format of an answer."""
    header = data.decode("latin-1")
    form, content_type = negotiate(header)
    assert form in FORMATS
    assert content_type.isascii()
    assert content_type.isprintable()
    accepts_gzip(header)


@_target
def query(data: bytes) -> None:
    """Answer queries of the API."""
    text = data.decode("latin-1")
    newest_first = [pages.record(number, comm) for number, comm in enumerate(pages.HOSTILE)]
    for answer in (partial(api.short_processes, newest_first), partial(busiest, {})):
        try:
            answer(text)
        except api.BadQuery as bad:
            assert str(bad).isprintable()


class _Names:
    def find(self, container_id: str, pod_uid: str) -> ContainerName:
        return ContainerName("shop", "cart-7d9f8b6c5d-x2x1z", "web") if pod_uid else ContainerName()


def _publish(raw: list[tuple[object, ...]]) -> None:
    """Decode records, publish them, and encode them as sinks and API do."""
    if not raw:
        return
    hub = Hub(1000)
    hub.publish(records(raw, [None] * len(raw), lambda _: b"", Lineages(), Mode.EBPF_CORE))
    for record in hub.recent():
        assert b"\0" not in record.exe
        assert line(record).isprintable()


def _load(data: bytes, load: Callable[[str], object]) -> None:
    """Read a file, and check that its problems are short lines."""
    fd = _memory("file", 0)
    os.ftruncate(fd, 0)
    os.pwrite(fd, data, 0)
    try:
        load(f"/proc/self/fd/{fd}")
    except ConfigError as error:
        assert all(each.isprintable() and len(each) <= _LONGEST_MESSAGE for each in error.lines)


def _check(response: Response) -> None:
    """Check that a response has exactly our header lines, and that no page failed."""
    assert response.status is not HTTPStatus.INTERNAL_SERVER_ERROR
    head = response.to_bytes(keep_alive=True, with_body=False)
    assert head.count(b"\n") == head.count(b"\r\n") == head.count(b"\r")
    assert head.endswith(b"\r\n\r\n")
    assert head.count(b"\r\n\r\n") == 1


def _write(fd: int, at: int, data: bytes) -> None:
    assert os.pwrite(fd, data, at) == len(data)


@cache
def _memory(name: str, size: int) -> int:
    """Return a file in memory, the same one for each name."""
    fd = os.memfd_create(name)
    os.ftruncate(fd, size)
    return fd


@cache
def _reducers() -> tuple[Callable[[Arguments], Arguments], ...]:
    choices = (Records(arguments="full"), Records(arguments="names"), Records(arguments="full", redact=("*x*", "pin")))
    return tuple(reduce for each in choices if (reduce := reducer(each)) is not None)


@cache
def _site() -> Site:
    hub = Hub(100)
    hub.publish([pages.record(number, comm) for number, comm in enumerate(pages.HOSTILE)])
    shown = Pages(Config(), pages.FakeSupervisor(snapshots.ordinary()), LastReload(), hub)
    return Site("/metrics", shown, public_records=True, streams=Streams(hub, dict))
