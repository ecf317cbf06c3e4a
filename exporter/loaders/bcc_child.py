"""Compiles and attaches `lifecycle.bcc.c`, and hands over the descriptors. `exporter.loaders.bcc` runs it as a program.

It runs under an interpreter that has bcc, so it imports nothing of the exporter and needs only Python 3.9. It sends the same message as
`exporter.loaders.handover.send`.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import importlib
import json
import mmap
import os
import signal
import socket
import sys
from typing import Any

_CLONE_NEWNS = 0x20000  # include/uapi/linux/sched.h
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000  # include/uapi/linux/mount.h
_TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_FORMATTED = {
    "on_path": "sched:sched_process_exec",
    "on_rename": "task:task_rename",
    "on_birth": "task:task_newtask",
    "on_mkdir": "cgroup:cgroup_mkdir",
}
_RAW = {
    "on_free": "sched_process_free",
    "on_exit": "sched_process_exit",
    "on_exit_2": "sched_process_exit",
    "on_exit_3": "sched_process_exit",
    "on_exec": "sched_process_exec",
    "on_signal": "signal_deliver",
    "on_own_rename": "task_rename",
    "on_newtask": "task_newtask",
}
_MAX_DESCRIPTORS = 250
_RINGBUF = 27  # BPF_MAP_TYPE_RINGBUF
_ATTACH_ORDER = (
    "on_mkdir",
    "on_free",
    "on_exit",
    "on_exit_2",
    "on_exit_3",
    "on_path",
    "on_exec",
    "on_own_rename",
    "on_rename",
    "on_signal",
    "on_newtask",
    "on_birth",
)
"""Attached in this order, so that each counted exit is followed by its free, and leaves no entry in `live_processes`."""
_ADVICE = {
    errno.EPERM: "allow bpf(2) and perf_event_open(2) in the seccomp profile or security module of the container",
    errno.EACCES: "a security module (SELinux, AppArmor) forbids it, or the verifier, whose log --log.level=debug shows",
}
"""Advice, by errno."""
_WITH_HEADERS, _WITHOUT = "task.bcc.c", "live_processes.bcc.c"
"""The second half of the source, after `lifecycle.bcc.c`."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p]


class _RefusedError(Exception):
    """Loading failed. The message is one sentence for the user."""


def main() -> None:
    """Send one answer, and exit without cleanup: the kernel does it faster."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the mask of the parent is inherited
    with socket.socket(fileno=int(sys.argv[1])) as ours:
        request = json.loads(sys.argv[2])
        try:
            answer, descriptors = _load(request)
        except _RefusedError as reason:
            answer, descriptors = {"unavailable": str(reason)}, []
        except OSError as error:
            answer, descriptors = {"unavailable": f"cannot read the kernel's tracepoints: {error}"}, []
        with contextlib.suppress(BrokenPipeError):
            _send(ours, json.dumps(answer).encode(), descriptors)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _send(ours: socket.socket, message: bytes, descriptors: list[int]) -> None:
    while len(descriptors) > _MAX_DESCRIPTORS:
        some, descriptors = array.array("i", descriptors[:_MAX_DESCRIPTORS]), descriptors[_MAX_DESCRIPTORS:]
        ours.sendmsg([b"+"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, some)])
    ours.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else [])


def _load(request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    tracefs = _tracefs(unshared=_unshare_mounts())
    try:
        bcc = importlib.import_module("bcc")
    except (ImportError, OSError) as error:
        raise _RefusedError(f"{sys.executable} cannot import bcc: {error}") from error
    with_ring = request["use_ring"] and _has_rings(bcc)
    facts = {"group_dead": not request["force_guard"] and "group_dead" in _format(tracefs, "sched/sched_process_exit")}
    flags = {
        "GROUP_DEAD_ARG": facts["group_dead"],
        "RENAME_TELLS_PID": request["use_rename_pid"] and " pid;" in _format(tracefs, "task/task_rename"),
        "MKDIR_TELLS_ID": "u64 id;" in _format_or_nothing(tracefs, "cgroup/cgroup_mkdir"),
        "WITH_RING": with_ring,
        "SEVERAL_COPIES": request["several_copies"],
    }
    headers = _headers() if request["use_headers"] else None
    defined = [f"-D{name}" for name, is_set in flags.items() if is_set] + [f"-D{name}={n}" for name, n in request["sizes"].items()]
    kernel, programs = _programs(bcc, request["sources"], headers, defined)
    maps = {name: _map(bcc, kernel, name, sizes) for name, sizes in request["maps"].items() if _map_fd(bcc, kernel, name) >= 0}
    for name, value in request["contents"].items():
        _fill(bcc, maps[name], name, bytes.fromhex(value))
    links = {name: _attempt("attach", lambda name=name: _attach(kernel, name)) for name in programs}
    buffers = [] if with_ring else _attempt("buffer the records of", lambda: _buffers(bcc, kernel, request["buffer_bytes"]))
    sizes = {name: request["maps"][name] for name in maps}
    answer = {"maps": sizes, "programs": list(programs), "links": list(links), "buffers": len(buffers), "facts": facts}
    return answer, [*maps.values(), *programs.values(), *links.values(), *buffers]


def _unshare_mounts() -> bool:
    """Enter a private mount namespace, and return whether that worked. The loader or bcc may mount tracefs in it."""
    return not _libc.unshare(_CLONE_NEWNS) and not _libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)


def _tracefs(*, unshared: bool) -> str:
    """Return the mount point of tracefs; mount it if needed."""
    for folder in _TRACEFS:
        if os.path.isdir(f"{folder}/events"):  # noqa: PTH112
            return folder
    if not unshared or _libc.mount(b"tracefs", _TRACEFS[0].encode(), b"tracefs", 0, None):
        reason = os.strerror(ctypes.get_errno())
        raise _RefusedError(f"tracefs is not mounted, and the loader cannot mount it ({reason}): mount -t tracefs tracefs {_TRACEFS[0]}")
    _log(f"note: tracefs is not mounted: mounting it at {_TRACEFS[0]} in the namespace of the loader")
    return _TRACEFS[0]


def _programs(bcc: Any, sources: str, headers: str | None, flags: list[str]) -> tuple[Any, dict[str, int]]:
    """Compile and load with the kernel headers if they are installed and match, else with our headers."""
    flags = [f"-I{sources}", *flags]
    if headers is not None:
        try:
            return _compiled(bcc, sources, _WITH_HEADERS, headers, [*flags, "-DWITH_TASK"])
        except _RefusedError as reason:
            _log(f"note: kernel headers are installed, but {reason}; outcomes and CPU are unknown")
    return _compiled(bcc, sources, _WITHOUT, sources, flags)


def _has_rings(bcc: Any) -> bool:
    """Return whether the kernel has ring buffers. Some kernels before 5.8 have backported them."""
    fd: int = bcc.lib.bcc_create_map(_RINGBUF, b"probe", 0, 0, mmap.PAGESIZE, 0)
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def _buffers(bcc: Any, kernel: Any, size: int) -> list[int]:
    """Open a perf event for each CPU, and enter it into `record_events`. The map drops them when its last descriptor closes."""
    kernel["record_events"].open_perf_buffer(lambda *_: None, page_cnt=size // mmap.PAGESIZE)
    return [bcc.lib.perf_reader_fd(reader) for reader in kernel.perf_buffers.values()]


def _headers() -> str | None:
    """Return the directory of the kernel headers; empty if bcc finds it, None if there are none."""
    release = os.uname().release
    for folder, for_bcc in (
        (f"/lib/modules/{release}/build", ""),
        (f"/lib/modules/{release}/source", ""),
        (f"/usr/src/linux-headers-{release}", f"/usr/src/linux-headers-{release}"),
    ):
        if os.path.exists(f"{folder}/include/linux/kconfig.h"):  # noqa: PTH110
            return for_bcc
    return None


def _compiled(bcc: Any, sources: str, half: str, headers: str, flags: list[str]) -> tuple[Any, dict[str, int]]:
    os.environ.pop("BCC_KERNEL_SOURCE", None)
    if headers:
        os.environ["BCC_KERNEL_SOURCE"] = headers
    text = _read(f"{sources}/lifecycle.bcc.c") + _read(f"{sources}/{half}")
    kernel = _attempt("compile", lambda: bcc.BPF(text=text, cflags=flags))
    names = {bcc.lib.bpf_function_name(kernel.module, number).decode() for number in range(bcc.lib.bpf_num_functions(kernel.module))}
    kinds = {name: bcc.BPF.TRACEPOINT if name in _FORMATTED else bcc.BPF.RAW_TRACEPOINT for name in names}
    order = [name for name in _ATTACH_ORDER if name in names]
    return kernel, {name: _attempt("load", lambda name=name: kernel.load_func(name.encode(), kinds[name]).fd) for name in order}


def _format(tracefs: str, event: str) -> str:
    return _read(f"{tracefs}/events/{event}/format")


def _format_or_nothing(tracefs: str, event: str) -> str:
    """Return the format of a tracepoint that the kernel may not have."""
    try:
        return _format(tracefs, event)
    except OSError:
        return ""


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        return file.read()


def _attempt(what: str, do: Any) -> Any:
    """Call `do`, and turn a failure into one sentence: bcc raises plain exceptions and prints the cause."""
    ctypes.set_errno(0)
    try:
        return do()
    except Exception as error:
        number = ctypes.get_errno()
        _log(f"{what}: {error!r}")
        reason = os.strerror(number) if number else str(error)
        advice = _ADVICE.get(number, "--log.level=debug shows the messages of bcc")
        raise _RefusedError(f"bcc cannot {what} the programs ({reason}): {advice}") from error


def _map(bcc: Any, kernel: Any, name: str, expected: list[int]) -> int:
    key_size, value_size = (getattr(bcc.lib, f"bpf_table_{what}_size")(kernel.module, name.encode()) for what in ("key", "leaf"))
    # in a per-CPU map, user space sees a value for each CPU
    if expected[0] != key_size or (expected[1] % value_size if value_size else expected[1]):
        raise _RefusedError(f"the map {name} has elements of {key_size} and {value_size} bytes instead of {expected}: report this")
    return _map_fd(bcc, kernel, name)


def _map_fd(bcc: Any, kernel: Any, name: str) -> int:
    """Return the descriptor of a map; below zero if the programs do not have it."""
    fd: int = bcc.lib.bpf_table_fd(kernel.module, name.encode())
    return fd


def _fill(bcc: Any, fd: int, name: str, value: bytes) -> None:
    zero = ctypes.c_int(0)
    if bcc.lib.bpf_update_elem(fd, ctypes.byref(zero), ctypes.create_string_buffer(value, len(value)), 0):
        raise _RefusedError(f"cannot fill the map {name}: {os.strerror(ctypes.get_errno())}")


def _attach(kernel: Any, name: str) -> int:
    """Attach a loaded program, and return the descriptor whose close detaches it."""
    if name in _FORMATTED:
        kernel.attach_tracepoint(tp=_FORMATTED[name].encode(), fn_name=name.encode())
        fd: int = kernel.tracepoint_fds[_FORMATTED[name].encode()]
    else:
        kernel.attach_raw_tracepoint(tp=_RAW[name].encode(), fn_name=name.encode())
        fd = kernel.raw_tracepoint_fds.pop(_RAW[name].encode())  # else bcc attaches no second program there
    return fd


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
