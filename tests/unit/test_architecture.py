"""What differs between processors, and what is refused where nothing is declared."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

from exporter.kernel import architecture, capabilities
from exporter.kernel.architecture import HERE, KNOWN, WORD_BITS, find, new_fence
from exporter.kernel.bpf import BpfMap
from exporter.kernel.layout import BCC_RECORDS_BYTES, PERF_BYTES_LEAST, RECORD_FORMAT, RECORDS_BYTES
from exporter.sources.ebpf.lineages import Lineages
from exporter.sources.ebpf.ringbuf import Ring
from tests.unit.raw_records import raw

ROOT = Path(__file__).parents[2]
GENERIC = {"aarch64", "riscv64", "loongarch64"}
HEADERS = {"x86_64": "x86_64-linux-gnu/asm/unistd_64.h", "ppc64le": "powerpc64le-linux-gnu/asm/unistd_64.h"}


@pytest.mark.parametrize("machine", KNOWN)
def test_numbers_are_those_of_the_headers(machine: str) -> None:
    """A wrong number would call something else, with a pointer to our memory."""
    header = Path("/usr/include", HEADERS.get(machine, "asm-generic/unistd.h"))
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    found = re.search(r"^#define __NR_bpf (\d+)$", header.read_text(), re.MULTILINE)
    assert found is not None
    assert (KNOWN[machine].bpf, machine in GENERIC) == (int(found[1]), machine not in HEADERS)


def test_a_32_bit_process_on_a_64_bit_kernel_is_not_taken_for_a_64_bit_one() -> None:
    """Raspberry Pi OS is such; number 280 is waitid(2) there."""
    assert find("aarch64", 64) is KNOWN["aarch64"]
    assert [find("aarch64", 32), find("armv7l", 32), find("s390x", 64)] == [None] * 3
    assert struct.calcsize("P") * 8 == WORD_BITS


def test_unknown_architectures_are_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is loaded: netlink and scans run there."""
    assert architecture.refusal() is None
    monkeypatch.setattr(architecture, "HERE", None)
    assert str(capabilities.bpf_refusal()).startswith(f"eBPF modes do not support {os.uname().machine}")


def test_the_call_really_is_bpf() -> None:
    """A number that is not bpf(2) would not say EBADF of descriptor -1."""
    with pytest.raises(OSError, match=r"Bad file descriptor|Operation not permitted"):
        BpfMap(2**32 - 1, 4, 4).lookup(bytes(4))


def test_only_weakly_ordered_processors_pay_for_fences() -> None:
    """On x86 nothing is called. A fence can be called again and again, by one thread."""
    assert {machine: new_fence(each) is None for machine, each in KNOWN.items()} == {each: each == "x86_64" for each in KNOWN}
    fence = new_fence(KNOWN["aarch64"])
    assert fence is not None
    assert [fence() for _ in range(3)] == [None] * 3


def test_a_ring_is_read_in_the_order_in_which_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that was read before the position, or data before the header, would be what an earlier lap left there."""
    fd = os.memfd_create("ring")
    page = os.sysconf("SC_PAGE_SIZE")
    os.ftruncate(fd, 2 * page + 2 * RECORDS_BYTES)
    record = struct.Struct(f"={RECORD_FORMAT}")
    data = record.pack(*raw(ended_ns=5, runtime_ns=1, pid=7, comm=b"comm"))
    positions: list[int] = []
    """The reader's own, at each fence."""

    def kernel_goes_on() -> None:
        positions.append(struct.unpack("=Q", os.pread(fd, 8, 0))[0])
        if len(positions) == 1:  # the position is read: the header comes only now
            os.pwrite(fd, struct.pack("=II", len(data), 0), 2 * page)
        if len(positions) == 2:  # the header is read: the data comes only now
            os.pwrite(fd, data, 2 * page + 8)

    monkeypatch.setattr("exporter.sources.ebpf.ringbuf.new_fence", lambda: kernel_goes_on)
    slots = SimpleNamespace(add=lambda popped: popped, close=lambda: None)
    ring = Ring(fd, Lineages(), slots)  # type: ignore[arg-type] # the paths are not read
    os.pwrite(fd, struct.pack("=Q", 8 + len(data)), page)
    popped = ring.pop()
    assert [each[:2] for each in popped] == [(5, 1)]
    assert positions == [0, 0, 0], "the records are read before the room is given back"
    assert struct.unpack("=Q", os.pread(fd, 8, 0))[0] == 8 + len(data)
    ring.close()
    os.close(fd)


def test_buffers_fit_large_pages() -> None:
    """arm64 kernels may have pages of 64 KiB. The kernel takes only whole pages, in powers of two."""
    assert [(size % (64 << 10), size & size - 1) for size in (RECORDS_BYTES, BCC_RECORDS_BYTES, PERF_BYTES_LEAST)] == [(0, 0)] * 3


def test_the_architecture_is_asked_for_in_one_place() -> None:
    """Everything else takes it from the declaration."""
    users = {str(path.relative_to(ROOT)) for path in (ROOT / "exporter").rglob("*.py") if "platform.machine" in path.read_text()}
    assert users == {"exporter/kernel/architecture.py", "exporter/doctor.py"}
    assert HERE is KNOWN.get(os.uname().machine)
