"""What differs between processors. Everything else that the exporter shares with the kernel is the same on all."""

from __future__ import annotations

import platform
import sys
import threading
from collections.abc import Callable
from typing import NamedTuple


class Architecture(NamedTuple):
    """A processor with 64 bits that is little-endian, as the BPF objects and the layouts in `layout` are."""

    bpf: int
    """The number of bpf(2): arch/*/entry/syscalls, or include/uapi/asm-generic/unistd.h."""
    is_ordered: bool
    """Whether loads are done in program order, and stores after the loads before them. On the others, a reader of mapped memory needs a
    fence: Documentation/memory-barriers.txt."""
    system_calls: tuple[str, str]
    """What the names of the kernel's functions for system calls begin with: of the usual kind, and of 32-bit programs."""


KNOWN = {
    "x86_64": Architecture(321, is_ordered=True, system_calls=("__x64_sys_", "__ia32_compat_sys_")),
    "aarch64": Architecture(280, is_ordered=False, system_calls=("__arm64_sys_", "__arm64_compat_sys_")),
    "riscv64": Architecture(280, is_ordered=False, system_calls=("__riscv_sys_", "__riscv_compat_sys_")),
    "ppc64le": Architecture(361, is_ordered=False, system_calls=("sys_", "compat_sys_")),
    "loongarch64": Architecture(280, is_ordered=False, system_calls=("sys_", "compat_sys_")),
}
"""By the machine of uname(2)."""


def find(machine: str, word_bits: int) -> Architecture | None:
    """Return the architecture of a process whose addresses have `word_bits`; None for one that eBPF modes do not run on.

    A 32-bit process on a 64-bit kernel has the kernel's machine, but other numbers of system calls.
    """
    return KNOWN.get(machine) if word_bits == 64 else None


WORD_BITS = sys.maxsize.bit_length() + 1
HERE = find(platform.machine(), WORD_BITS)


def refusal() -> str | None:
    """Return why eBPF modes cannot run on this processor, or None."""
    return None if HERE else f"eBPF modes do not support {platform.machine()} with {WORD_BITS} bits: only {', '.join(KNOWN)} with 64"


def new_fence(architecture: Architecture | None = HERE) -> Callable[[], None] | None:
    """Return what a thread calls between two accesses of memory that must not change their order; None where they cannot.

    Each thread needs its own. Python has no fence, but locks: what is before a release is done before it, what is after an acquisition is
    done after it, and a release is done before a later acquisition. (Arm Architecture Reference Manual, barrier-ordered-before; RISC-V
    unprivileged specification, RCsc annotations.)
    """
    if architecture is not None and architecture.is_ordered:
        return None
    lock = threading.Lock()
    lock.acquire()

    def fence() -> None:
        lock.release()
        lock.acquire()

    return fence
