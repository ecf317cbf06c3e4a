"""The exporter's processes and BPF programs: which there are, what they take, and what is left of them."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

from exporter.kernel import bpf

_PROG_GET_FD_BY_ID = 13


def family(pid: int) -> dict[str, psutil.Process]:
    """Return the broker and the handlers' child of an exporter, as far as they are there."""
    found: dict[str, psutil.Process] = {}
    for each in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if each.status() != psutil.STATUS_ZOMBIE:
                found["broker" if "exporter.loaders.broker_process" in each.cmdline() else "handlers"] = each
    return found


def programs_of(pid: int) -> set[int]:
    """Ids of the BPF programs that a process holds."""
    return {int(value) for _, value in _fdinfo(pid, "prog_id")}


def loaded(program: int) -> bool:
    """Whether the kernel still has a BPF program of this id."""
    attr = (ctypes.c_uint32 * 3)(program)
    fd: int = bpf._libc.syscall(bpf._SYS_BPF, _PROG_GET_FD_BY_ID, ctypes.byref(attr), ctypes.sizeof(attr))  # noqa: SLF001
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def marked(mark: str) -> list[int]:
    """Processes that inherited the mark in their environment."""
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if mark.encode() in _content(path)]


class Taken(NamedTuple):
    """What some processes take together."""

    pss_kib: int
    descriptors: int
    threads: int
    bpf_kib: int
    """Memory of the BPF maps that they hold, each once."""


def taken(pids: Iterable[int]) -> Taken:
    """Return what processes take. Those that are gone take nothing."""
    pss = descriptors = threads = 0
    maps: dict[str, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            pss += int(next(line for line in lines if line.startswith("Pss:")).split()[1])
            descriptors += len(list(Path(f"/proc/{pid}/fd").iterdir()))
            threads += psutil.Process(pid).num_threads()
            sizes = dict(_fdinfo(pid, "memlock"))
            maps |= {number: int(sizes.get(path, "0")) for path, number in _fdinfo(pid, "map_id")}
    return Taken(pss, descriptors, threads, sum(maps.values()) // 1024)


def _fdinfo(pid: int, key: str) -> list[tuple[str, str]]:
    """Return the values of a key of a process's descriptors, each with its path."""
    found = []
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        lines = _content(path).decode().splitlines()
        found += [(str(path), line.split()[1]) for line in lines if line.startswith(f"{key}:")]
    return found


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
