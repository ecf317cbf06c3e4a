"""Forks and execs that fail, and processes killed for memory, in known numbers."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.model.failures import Failure, Kind
from tests.kernel.programs import Program, ended
from tests.system_calls import CLONE

UID = 61_235
"""Of nobody else here: RLIMIT_NPROC is for all of a user's processes together."""
MIB = 1 << 20
_CLONE_NEWNS, _CLONE_FS, _CLONE_NEWPID = 0x20000, 0x200, 0x20000000
_libc = ctypes.CDLL(None, use_errno=True)

Failed = Counter[Failure]


class Unavailable(Exception):
    """The host does not allow it. The message is the reason."""


def execs(folder: Path, times: int) -> Failed:
    """By path and by descriptor (execveat)."""
    plain, garbage = folder / "plain", folder / "garbage"
    plain.write_text("not executable")
    garbage.write_bytes(b"\0not a program")
    garbage.chmod(0o755)
    failed = Failed()
    for path, argument, error in (
        (folder / "missing", "", errno.ENOENT),
        (plain, "", errno.EACCES),
        (garbage, "", errno.ENOEXEC),
        (Path(sys.executable), "x" * MIB, errno.E2BIG),
        (plain / "below", "", errno.ENOTDIR),
    ):
        ways: list[Path | int] = [path]
        if path.is_file():
            ways.append(os.open(path, os.O_RDONLY))
        for way in ways:
            for _ in range(times):
                assert _exec_error(way, argument) == error
            if isinstance(way, int):
                os.close(way)
            failed[Failure(Kind.EXEC, "other" if error == errno.ENOTDIR else errno.errorcode[error])] += times
    return failed


def compat_execs(workload: Program, times: int) -> Failed:
    """Through the system calls of 32-bit programs."""
    if workload.run("compat", times).status:
        raise Unavailable("this kernel has no 32-bit system calls")
    return Failed({Failure(Kind.EXEC, "ENOENT"): 2 * times})


def forks_beyond_the_limit(times: int) -> Failed:
    """Of a user's processes."""

    def limit() -> None:
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))

    return _forks(limit, times)


def forks_in_a_full_cgroup(times: int) -> Failed:
    """And one thread. As root, whom the limit of a user's processes does not concern."""
    with cgroup("pids") as folder:
        (folder / "pids.max").write_text("1")
        failed = _forks(lambda: _enter(folder), times, also_thread=True)
        failed[Failure(Kind.FORK, "EAGAIN")] += 1
        return failed


def forks_without_init(times: int) -> Failed:
    """In a PID namespace whose init has exited, the kernel says that it has no memory."""

    def leave() -> None:
        if _libc.unshare(_CLONE_NEWPID):
            os._exit(255)
        if not (pid := os.fork()):
            os._exit(0)
        os.waitpid(pid, 0)

    return _forks(leave, times, error=errno.ENOMEM)


def contradictory_clones(times: int) -> Failed:
    """Flags that exclude each other."""
    for _ in range(times):
        assert _libc.syscall(CLONE, _CLONE_NEWNS | _CLONE_FS, 0, 0, 0, 0) == -1
        assert ctypes.get_errno() == errno.EINVAL
    return Failed({Failure(Kind.FORK, "other"): times})


def oom_kills(times: int) -> Failed:
    """In a memory cgroup that is too small."""
    with cgroup("memory") as folder:
        v2 = (folder / "memory.max").exists()
        (folder / ("memory.max" if v2 else "memory.limit_in_bytes")).write_text(str(24 * MIB))
        with contextlib.suppress(OSError):  # there may be no swap
            (folder / ("memory.swap.max" if v2 else "memory.swappiness")).write_text("0")
        code = f"import sys; open(sys.argv[1], 'w').write('0'); bytearray(b'x') * {200 * MIB}"
        for _ in range(times):
            status = ended(_spawned(code, str(folder / "cgroup.procs"))).status
            assert os.waitstatus_to_exitcode(status) == -9, status
    return Failed({Failure(Kind.OOM_KILL): times})


@contextmanager
def cgroup(controller: str) -> Iterator[Path]:
    """Make a cgroup, of whichever version this host has. Raises `Unavailable`."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as held:
        root = _mounted(controller)
        if root is None:
            root = Path(name)
            # by their whole paths: a search along PATH is failed execs, too
            mount, unmount = shutil.which("mount"), shutil.which("umount")
            if mount is None or unmount is None:
                raise Unavailable("there is no mount")
            if subprocess.run([mount, "-t", "cgroup2", "none", name], check=False, capture_output=True).returncode:
                raise Unavailable(f"there is no cgroup with the controller {controller}")
            held.callback(subprocess.run, [unmount, name], check=True)
        folder = root / f"shortproc-test-{os.getpid()}"
        try:
            if (root / "cgroup.subtree_control").exists():
                (root / "cgroup.subtree_control").write_text(f"+{controller}")
            folder.mkdir()
        except OSError as error:
            raise Unavailable(f"cannot make a cgroup with the controller {controller}: {error.strerror}") from error
        held.callback(folder.rmdir)
        yield folder


def _mounted(controller: str) -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, path, kind, options, *_ = line.split()
        controllers = Path(path) / "cgroup.controllers"
        if kind == "cgroup" and controller in options.split(","):
            return Path(path)
        if kind == "cgroup2" and controllers.exists() and controller in controllers.read_text().split():
            return Path(path)
    return None


def _exec_error(way: Path | int, argument: str) -> int | None:
    """In a child: a process whose execs failed can hang Linux 7.3 when it starts threads (tests/vm/README.md)."""
    if not (pid := os.fork()):
        with contextlib.suppress(BaseException):  # the test goes on in the parent alone
            try:
                os.execve(way, ["x", argument], {})
            except OSError as error:
                os._exit(error.errno or 0)
        os._exit(0)
    return os.waitstatus_to_exitcode(ended(pid).status)


def _spawned(code: str, *arguments: str) -> int:
    return os.posix_spawn(sys.executable, [sys.executable, "-c", code, *arguments], os.environ)


def _enter(folder: Path) -> None:
    (folder / "cgroup.procs").write_text("0")


def _forks(prepare: Callable[[], None], times: int, *, also_thread: bool = False, error: int = errno.EAGAIN) -> Failed:
    """Try to fork in a child that has done `prepare`; each attempt fails."""
    if not (pid := os.fork()):
        failed = 0
        with contextlib.suppress(BaseException):  # the test goes on in the parent alone
            prepare()
            for _ in range(times):
                try:
                    if not os.fork():
                        os._exit(0)
                except OSError as failure:
                    failed += failure.errno == error
            if also_thread:
                try:
                    threading.Thread(target=lambda: None).start()
                except RuntimeError:
                    failed += 1
        os._exit(failed)
    assert os.waitstatus_to_exitcode(ended(pid).status) == times + also_thread
    return Failed({Failure(Kind.FORK, errno.errorcode[error]): times})
