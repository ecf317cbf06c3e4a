"""Paths of executables are read from slots that the kernel writes, and that later processes use again."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from exporter.kernel.layout import ARGUMENTS_SLOTS, EXE_LEN, EXE_SLOTS, ArgumentsSlot, Exe
from exporter.model.arguments import Arguments
from exporter.sources.ebpf.exec_slots import ARGUMENTS_BYTES, EXE_BYTES, ExecSlots
from tests.unit import raw_records

START, RUNTIME, SINCE = 1000, 50, 900


def raw(pid: int, *, has_exe: int = 1, start_ns: int = START) -> tuple[Any, ...]:
    return raw_records.raw(ended_ns=start_ns + RUNTIME, runtime_ns=RUNTIME, pid=pid, has_exe=has_exe)


@pytest.fixture
def memory() -> Iterator[int]:
    fd = os.memfd_create("exes")
    os.ftruncate(fd, EXE_BYTES)
    yield fd
    os.close(fd)


@pytest.fixture
def slots(memory: int) -> Iterator[ExecSlots]:
    made = ExecSlots(memory, SINCE)
    yield made
    made.close()


def write(memory: int, pid: int, path: bytes, start_ns: int = START) -> None:
    os.pwrite(memory, bytes(Exe(start_ns, path)), pid % EXE_SLOTS * 320)


def test_paths_are_those_of_their_process(memory: int, slots: ExecSlots) -> None:
    """A slot has the path of the process with this start; the longest path fits."""
    longest = b"/" + b"x" * (EXE_LEN - 2)
    write(memory, 7, b"/bin/true")
    write(memory, EXE_SLOTS + 8, longest)
    assert [each[-1] for each in slots.add([raw(7), raw(EXE_SLOTS + 8)])] == [b"/bin/true", longest]
    assert slots.lost == 0


def test_the_path_of_another_process_is_not_taken(memory: int, slots: ExecSlots) -> None:
    """A process that started later may use the slot before the record is read; that is a loss, and counted."""
    write(memory, 7 + EXE_SLOTS, b"/bin/other", START + 5)
    assert [each[-1] for each in slots.add([raw(7)])] == [b""]
    assert slots.lost == 1


def test_a_process_without_an_exec_has_no_path(memory: int, slots: ExecSlots) -> None:
    """A fork runs its parent's program, and that is no loss; nor is an exec before the programs were attached."""
    assert [each[-1] for each in slots.add([raw(7, has_exe=0), raw(7, start_ns=SINCE - 1)])] == [b"", b""]
    assert slots.lost == 0


def test_arguments_are_beside_the_path(memory: int) -> None:
    """A record that lacks one of the two is counted once; a process without arguments lacks nothing."""
    fd = os.memfd_create("arguments")
    os.ftruncate(fd, ARGUMENTS_BYTES)
    slots = ExecSlots(memory, SINCE, fd)
    for pid, text in ((7, b"x\0-v\0"), (8, b"")):
        write(memory, pid, b"/bin/x")
        os.pwrite(fd, struct.pack("=QQ", START, len(text)) + text, pid % ARGUMENTS_SLOTS * ctypes.sizeof(ArgumentsSlot))
    write(memory, 9, b"/bin/x")
    found = [each[-2:] for each in slots.add([raw(7), raw(8), raw(9), raw(10), raw(11, has_exe=0)])]
    assert found == [(b"/bin/x", Arguments(b"x\0-v", cut=False)), (b"/bin/x", None), (b"/bin/x", None), (b"", None), (b"", None)]
    assert slots.lost == 2
    slots.close()
    os.close(fd)
