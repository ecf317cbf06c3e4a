"""Privileges of this process (capabilities(7), user_namespaces(7), kernel_lockdown(7))."""

from __future__ import annotations

import contextlib
from pathlib import Path

from exporter.kernel import architecture

CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 21, 38, 39
"""From include/uapi/linux/capability.h."""
INITIAL_USER_NAMESPACE = 0xEFFFFFFD
"""Inode of its file in /proc: `PROC_USER_INIT_INO` in include/linux/proc_ns.h."""

_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_COMMAND_LINE = Path("/proc/cmdline")


def effective() -> int:
    """Return the effective capabilities, as a mask."""
    return _mask("CapEff")


def permitted() -> int:
    """Return the permitted capabilities, as a mask."""
    return _mask("CapPrm")


def in_initial_user_namespace(procfs: str = "/proc") -> bool:
    """Return whether this process is in the host's user namespace. Raises `OSError` if `procfs` cannot be read."""
    return Path(procfs, "self/ns/user").stat().st_ino == INITIAL_USER_NAMESPACE


def bpf_refusal() -> str | None:
    """Return why this process cannot load eBPF programs, or None. The reason is clearer than the errno of bpf(2)."""
    if reason := architecture.refusal():
        return reason
    try:
        if not in_initial_user_namespace():
            return "eBPF programs can only be loaded from the host's user namespace: do not use --userns or a rootless container"
    except OSError:  # a kernel without user namespaces
        pass
    mask = effective()
    if not mask >> CAP_SYS_ADMIN & 1 and not (mask >> CAP_BPF & 1 and mask >> CAP_PERFMON & 1):
        return "loading eBPF programs needs CAP_BPF and CAP_PERFMON: run as root, or grant both"
    if _is_locked_down():
        return "the kernel does not let eBPF programs read it: boot it without lockdown=confidentiality"
    return None


def _is_locked_down() -> bool:
    """Return whether nobody may read the kernel's memory. Without securityfs, the command line tells that it is so from boot on."""
    with contextlib.suppress(OSError):
        return "[confidentiality]" in _LOCKDOWN.read_text()
    with contextlib.suppress(OSError):  # hidden where /proc is mounted with subset=pid
        return "lockdown=confidentiality" in _COMMAND_LINE.read_text().split()
    return False


def _mask(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1], 16)
    return 0
