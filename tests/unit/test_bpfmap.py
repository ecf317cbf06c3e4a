"""What can be known of maps without the privilege to make one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from exporter.kernel.bpf import BpfMap, map_memory, possible_cpus, program_info


@pytest.mark.parametrize(
    ("ranges", "n"), [("0\n", 1), ("0-1\n", 2), ("0-3,8-11\n", 8), ("0,2,4-5\n", 4), ("0-127\n", 128)], ids=lambda each: str(each).strip()
)
def test_possible_cpus(monkeypatch: pytest.MonkeyPatch, ranges: str, n: int) -> None:
    """A per-CPU value is as long as this says, holes and all; a wrong one would let the kernel write past a buffer."""
    monkeypatch.setattr(Path, "read_text", lambda path: ranges)
    assert possible_cpus() == n


def test_this_machines_cpus() -> None:
    """At least those that are there."""
    assert possible_cpus() >= (os.cpu_count() or 1)


def test_a_descriptor_that_is_no_map() -> None:
    """It raises OSError with the kernel's reason; nothing is made up."""
    with open(os.devnull, "rb") as file:  # noqa: PTH123
        each = BpfMap(file.fileno(), 4, 8)
        for call in (lambda: each.lookup(b"\0" * 4), lambda: each.update(b"\0" * 4, b"\0" * 8), each.read, each.pop_all):
            with pytest.raises(OSError, match=r"bpf map") as caught:
                call()
            assert caught.value.errno in (errno.EINVAL, errno.EPERM, errno.ENOSYS)
        with pytest.raises(OSError, match=r"bpf program info"):
            program_info(file.fileno())
        assert map_memory(file.fileno()) == 0
