"""Loads `lifecycle.bcc.c` with bcc, in a child; see `handover`.

bcc is installed for the system's Python (Debian: `python3-bpfcc`), which may not be our interpreter. `bcc` on PyPI is another project.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from exporter.kernel import release
from exporter.kernel.attached import Handover
from exporter.kernel.bpf import possible_cpus
from exporter.kernel.capabilities import bpf_refusal
from exporter.kernel.cgroups import hierarchy
from exporter.kernel.layout import (
    CGROUP_PATH_LEN,
    EXE_LEN,
    CgroupCounts,
    CgroupKey,
    CpuRow,
    OriginKey,
    OriginRow,
    ProgramConfig,
    ProgramControl,
    RecordCpu,
    Shared,
    comm_rows,
    perf_bytes,
    program_config,
    row_bytes,
    row_lifetimes,
    standby_control,
)
from exporter.kernel.procfs import Procfs
from exporter.loaders.base import Settings
from exporter.loaders.handover import run
from exporter.loaders.live_processes import Filler, LiveProcess
from exporter.model import KERNEL_THREADS, Lost, ModeUnavailable, RuntimeScale
from exporter.process.shortage import advice, describe

PLACES = (Path(__file__).parents[1] / "_bpf", Path(__file__).parents[2] / "bpf")
"""Directories of the BPF sources: in a wheel, and in a checkout."""

_CHILD = Path(__file__).with_name("bcc_child.py")
_OLDEST = (4, 18)
_PROGRAMS_SEE_FULL_BUFFERS = (5, 1)
"""First kernel that reports a full perf buffer to the program: kernel/trace/bpf_trace.c, __bpf_perf_event_output()."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FIND = """
import importlib.util, os, sys
spec = importlib.util.find_spec("bcc")
found = spec and spec.origin and os.path.exists(os.path.join(os.path.dirname(spec.origin), "libbcc.py"))
sys.exit(not (found and sys.version_info >= (3, 9)))
"""
_FIND_SECONDS = 10


def load(settings: Settings, on_log: Callable[[str], None]) -> Handover:
    """See `ModeLoader`."""
    return load_bcc(
        settings.scale, on_log, by_origin=settings.by_origin, comms=settings.comms, interpreter=settings.interpreter, proc=settings.procfs
    )


def load_bcc(  # noqa: PLR0913 - two are required
    scale: RuntimeScale,
    on_log: Callable[[str], None],
    *,
    by_origin: bool = True,
    comms: int = 0,
    interpreter: str = "",
    proc: str = "/proc",
    use_headers: bool = True,
    use_ring: bool = True,
    use_rename_pid: bool = True,
    force_guard: bool = False,
    several_copies: bool | None = None,
    timeout: float = 60,
) -> Handover:
    """Compile, load and attach the programs, in standby. Raises `ModeUnavailable` with advice.

    `by_origin` counts for whom processes ran; `comms` is how many comms may have series. `interpreter` has bcc; if empty, one is searched
    for. `use_headers` uses the kernel headers if installed: outcomes and CPU need them. `use_ring` uses the ring buffer if the kernel has
    one. `use_rename_pid` uses the PID in the tracepoint of renames if it is there. `force_guard` counts exits as on kernels whose
    tracepoint does not mark the last thread, `several_copies` as on kernels that preempt programs, or not; by default as this kernel does.
    """
    sources, found = _require(interpreter)
    cgroups = hierarchy()
    request = {
        "sources": str(sources),
        "maps": _sizes(row_bytes(row_lifetimes(scale))),
        "sizes": {"MAX_COMMS": comm_rows(comms), "ROW_LIFETIMES": row_lifetimes(scale)},
        "contents": {
            "configs": bytes(program_config(scale, cgroups, by_origin=by_origin)).hex(),
            "control": bytes(standby_control()).hex(),
        },
        "use_headers": use_headers,
        "use_ring": use_ring,
        "use_rename_pid": use_rename_pid,
        "buffer_bytes": perf_bytes(possible_cpus()),
        "force_guard": force_guard,
        "several_copies": release.preempts_programs() if several_copies is None else several_copies,
    }
    # -I: as root, import nothing from the working directory or the environment
    handover = run([found, "-I", str(_CHILD)], request, timeout=timeout, on_log=on_log)
    handover.facts["cgroups"] = cgroups.root
    handover.facts["buffers_count_lost"] = release.version() < _PROGRAMS_SEE_FULL_BUFFERS
    try:
        if "live_processes" in handover.maps:
            _insert_existing(handover, proc, on_log, count_threads=not handover.facts["group_dead"])
    except OSError as error:
        handover.close()
        raise ModeUnavailable(f"cannot enter the running processes into the map: {describe(error)}") from error
    return handover


def refusal(settings: Settings | None = None) -> str | None:
    """See `ModeLoader`."""
    try:
        _require(settings.interpreter if settings is not None else "")
    except ModeUnavailable as reason:
        return str(reason)
    return None


def _require(interpreter: str) -> tuple[Path, str]:
    """Return the directory of the sources, and an interpreter that has bcc. Raises `ModeUnavailable`."""
    if release.version() < _OLDEST:
        raise ModeUnavailable(f"kernel {os.uname().release} is too old: this mode needs 4.18 or later")
    sources = next((place for place in PLACES if (place / "lifecycle.bcc.c").exists()), None)
    if sources is None:
        raise ModeUnavailable("the source of the programs, lifecycle.bcc.c, is not installed: install the exporter again")
    if os.geteuid() != 0:
        raise ModeUnavailable("bcc needs root: run the exporter as root")
    if reason := bpf_refusal():
        raise ModeUnavailable(reason)
    candidates = [interpreter] if interpreter else [sys.executable, "/usr/bin/python3", shutil.which("python3", path=_PATH)]
    found = next((each for each in candidates if each and _has_bcc(each)), None)
    if found is None and interpreter:
        raise ModeUnavailable(f"{interpreter} has no bcc, or is older than Python 3.9: change detection.ebpf_bcc.interpreter")
    if found is None:
        raise ModeUnavailable(
            "no Python interpreter here has bcc: install it (Debian and Ubuntu: apt install python3-bpfcc), or set "
            "detection.ebpf_bcc.interpreter to one that has it"
        )
    return sources, found


_with_bcc: set[str] = set()


def _has_bcc(interpreter: str) -> bool:
    """Return whether an interpreter has bcc. Only True is cached: bcc may be installed later. Raises `ModeUnavailable`."""
    if interpreter not in _with_bcc:
        command = [interpreter, "-I", "-c", _FIND]
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_FIND_SECONDS, check=True)  # noqa: S603
        except (OSError, subprocess.SubprocessError) as error:
            if shortage := advice(error):
                raise ModeUnavailable(f"cannot search for bcc: {shortage}") from error
            return False
        _with_bcc.add(interpreter)
    return True


@cache
def _sizes(row: int) -> dict[str, tuple[int, int]]:
    """Return the sizes of keys and values of all maps, in bytes, as user space sees them. `row` is that of a row of comms."""
    cpus = ctypes.sizeof(CpuRow) * possible_cpus()
    return {
        "comms_a": (16, row),
        "comms_b": (16, row),
        **dict.fromkeys(("origins_a", "origins_b"), (ctypes.sizeof(OriginKey), ctypes.sizeof(OriginRow))),
        **dict.fromkeys(("cgroup_counts_a", "cgroup_counts_b"), (ctypes.sizeof(CgroupKey), ctypes.sizeof(CgroupCounts))),
        "cgroup_paths": (8, CGROUP_PATH_LEN),
        "barrier": (4, 4),
        "barrier_inner": (4, 4),
        "cpus": (4, cpus),
        "shared": (4, ctypes.sizeof(Shared)),
        "configs": (4, ctypes.sizeof(ProgramConfig)),
        "control": (4, ctypes.sizeof(ProgramControl)),
        "records": (0, 0),
        "record_events": (4, 4),
        "exes": (4, EXE_LEN),
        "record_cpus": (4, ctypes.sizeof(RecordCpu)),
        "live_processes": (4, ctypes.sizeof(LiveProcess)),
        "exit_notes": (8, 16),
        "exit_marks": (4, 8),
        "guard": (16, 1),
    }


def _insert_existing(handover: Handover, proc: str, on_log: Callable[[str], None], *, count_threads: bool) -> None:
    """Enter the processes that started before the programs; otherwise their exits would not be counted."""
    procfs = Procfs(proc)
    kthreadd = procfs.stat(2)
    if isinstance(kthreadd, Lost) or kthreadd.comm != KERNEL_THREADS:
        on_log(f"note: {proc} does not list the host's processes: exits of running processes are not counted")
        return
    not_entered = Filler(handover.maps["live_processes"], procfs, count_threads=count_threads).fill()
    if not_entered:
        on_log(f"note: {not_entered} running processes do not fit into the map or change too quickly: their exits are not counted")
