"""What the serving process gives up once everything that takes privilege has been started (capabilities(7), prctl(2))."""

from __future__ import annotations

import ctypes
import os
import pwd
import struct
from collections.abc import Iterable
from pathlib import Path

from exporter.kernel import release
from exporter.kernel.capabilities import CAP_BPF, CAP_SYS_ADMIN, permitted

USER = "shortproc-exporter"
"""Whom it becomes, if there is such a user and no other is configured."""
NOBODY = 65534

_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_VERSION_3 = 0x20080522


class NoSuchUser(Exception):
    """The message is one line."""


def has_any() -> bool:
    """Whether there is something to give up."""
    return os.geteuid() == 0 or permitted() != 0


def user_of(name: str) -> tuple[int, int]:
    """User and group of a name or a number; without one, of `shortproc-exporter` or of nobody. Raises `NoSuchUser`."""
    try:
        found = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name or USER)
    except KeyError:
        if not name:
            return NOBODY, NOBODY
        if name.isdigit():
            return int(name), int(name)
        raise NoSuchUser(f"there is no user {name!r} on this host") from None
    if found.pw_uid == 0:
        raise NoSuchUser(f"{name!r} is root: to keep all privileges, set security.drop_privileges: false")
    return found.pw_uid, found.pw_gid


def target_user(user: str, *, drop: bool, writer: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return user and group to switch to; None if there are no privileges to drop, or they are to stay. Raises `NoSuchUser`.

    Unless `user` is set, it is the owner of the sinks' directory, `writer`, if there are sinks: a child of ours writes them.
    """
    if not drop or not has_any():
        return None
    if writer is None:
        return user_of(user)
    if user and user_of(user)[0] != writer[0]:
        raise NoSuchUser(f"the directory of the sinks belongs to user {writer[0]}, who has to write there")
    return writer


def reload_warning(path: str, user: int, group: int) -> str | None:
    """Say that `user` cannot read a file that is read again while running, if root can tell. Before the first thread.

    The kernel is asked, by a child that switches to that user: mode bits alone do not tell, since directories and ACLs count too.
    """
    if os.geteuid() != 0 or not Path(path).exists():
        return None
    child = os.fork()
    if child == 0:
        status = 2  # root may not switch here: it is not known
        try:
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
            status = 0 if os.access(path, os.R_OK) else 1
        finally:
            os._exit(status)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 1:
        return None
    return f"user {user} cannot read {path}, so a reload will fail: chgrp {group} {path} && chmod 640 {path}"


def needed_capabilities() -> set[int]:
    """The capabilities without which a running source could not go on: older kernels let only the privileged read maps."""
    if release.version() >= (5, 19):
        return set()
    return {CAP_BPF} if release.version() >= (5, 8) else {CAP_SYS_ADMIN}


def drop(user: int, group: int, keep: Iterable[int]) -> None:
    """Become `user` if root, and keep no capability but `keep`, as far as they were there. Before the first thread: capset(2) is for one.

    Raises `OSError`, or `NoSuchUser` where root may not become another: then nothing must be served.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    kept = sum(1 << number for number in keep) & permitted()
    if os.geteuid() == 0:
        check(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
        try:
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
        except OSError as error:  # a container's root without the two, or a user namespace in which there is no such user
            why = (error.strerror or str(error)).lower()
            how = "grant CAP_SETUID and CAP_SETGID, start as another user, or set security.drop_privileges: false"
            raise NoSuchUser(f"cannot switch to user {user} ({why}): {how}") from None
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)  # fails where the kernel has none (before 4.3)
    set_capabilities(libc, kept)
    check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    check(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))  # a handler of the same user must not trace us, nor take our descriptors


def set_capabilities(libc: ctypes.CDLL, wanted: int) -> None:
    """Have these effective and permitted, none inheritable. Raises `OSError`."""
    low, high = wanted & 0xFFFFFFFF, wanted >> 32
    check(libc.capset(struct.pack("=Ii", _VERSION_3, 0), struct.pack("=6I", low, low, 0, high, high, 0)))


def check(result: int) -> None:
    """Raise `OSError` where a call of libc failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
