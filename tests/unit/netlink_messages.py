"""Messages as kernels write them: those recorded on Linux 6.18, and older layouts made by hand."""

from __future__ import annotations

from pathlib import Path
from struct import Struct

from exporter.kernel.proc_connector import EVENT_COMM, EVENT_EXEC, EVENT_EXIT, EVENT_FORK, SLOT_BYTES, Event, comm_of, events
from exporter.kernel.taskstats import Stats, decode
from exporter.sources.netlink.thread_groups import Groups

FIXTURES = Path(__file__).parents[1] / "fixtures/netlink"
FAMILY = 31
AGROUP = 0x20


def recorded(name: str) -> list[bytes]:
    """The datagrams of a recording, in their order."""
    return [bytes.fromhex(line) for line in (FIXTURES / f"{name}.hex").read_text().splitlines()]


def slots(datagrams: list[bytes], stale: bytes = b"\xff") -> memoryview:
    """Datagrams in slots, the rest of each filled with leftovers."""
    return memoryview(b"".join(each[:SLOT_BYTES].ljust(SLOT_BYTES, stale) for each in datagrams))


def decoded(datagrams: list[bytes]) -> list[Event | None]:
    return list(events(slots(datagrams), [len(each) for each in datagrams]))


def feed(groups: Groups, datagrams: list[bytes]) -> int:
    """Have the events of datagrams counted, as the source does. Returns how many are malformed."""
    view = slots(datagrams)
    malformed = 0
    for i, each in enumerate(decoded(datagrams)):
        if each is None:
            malformed += 1
            continue
        what, _, at_ns, _, _, a, b, c, d, _, f = each
        if what == EVENT_FORK:
            groups.forked(at_ns, a, b, c, d)
        elif what == EVENT_EXEC:
            groups.execed(at_ns, b)
        elif what == EVENT_COMM:
            groups.renamed(a, b, comm_of(view, i))
        elif what == EVENT_EXIT:
            groups.exited(at_ns, a, b, c, f)
    return malformed


def event(what: int, words: tuple[int, ...], *, at_ns: int = 0, cpu: int = 0, number: int = 0, data_len: int = 40) -> bytes:
    """An event; a `data_len` under 40 is that of a kernel with fewer fields."""
    data = Struct("=IIQ6I").pack(what, cpu, at_ns, *words, *(0,) * (6 - len(words))).ljust(data_len, b"\7")[:data_len]
    return Struct("=IHHIIIIIIHH").pack(36 + data_len, 3, 0, number, 0, 1, 1, number, 0, data_len, 0) + data


def taskstats(version: int, stats: Stats, *, flag: int = 0, pad: bool = False) -> bytes:
    """The message of a version; `pad` aligns it as kernels do on machines that can't read unaligned words."""
    moved = 48 if version == 15 else 0
    sizes = {8: 328, 9: 344, 10: 352, 11: 368, 12: 400, 13: 416, 14: 432, 15: 560, 16: 560, 17: 688}
    data = bytearray(sizes[version])
    Struct("=H2xIB").pack_into(data, 0, version, stats.exit_code, flag | (AGROUP if stats.group_dead else 0))
    who = stats.comm, stats.uid, stats.pid, stats.ppid
    Struct("=32s8xI4xII8xQQQ").pack_into(data, 80 + moved, *who, stats.elapsed_us, stats.cpu_us, 0)
    if version >= 12:
        Struct("=I4xQ").pack_into(data, 464 if version == 15 else 368, stats.tgid, stats.elapsed_us)
    attribute = Struct("=HH")
    inner = attribute.pack(8, 1) + Struct("=I").pack(stats.pid) + (attribute.pack(4, 6) if pad else b"")
    inner += attribute.pack(4 + len(data), 3) + data
    body = Struct("=BBH").pack(2, 1, 0) + attribute.pack(4 + len(inner), 4) + inner
    return Struct("=IHHII").pack(16 + len(body), FAMILY, 0, 0, 0) + body


def decode_bytes(message: bytes) -> object:
    return decode(memoryview(message), FAMILY)
