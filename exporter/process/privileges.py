"""Drops the privileges of the serving process, once everything that needs them has started (capabilities(7), prctl(2))."""

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
"""The default user, if it exists."""
NOBODY = 65534

_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_VERSION_3 = 0x20080522


class NoSuchUser(Exception):
    """The process cannot switch to the user. The message is one line."""


def has_any() -> bool:
    """Return whether this process has privileges to drop."""
    return os.geteuid() == 0 or permitted() != 0


def user_of(name: str) -> tuple[int, int]:
    """Return uid and gid of a user name or number; if empty, of `shortproc-exporter` or nobody. Raises `NoSuchUser`."""
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
    """Return the uid and gid to switch to, or None if nothing is dropped. Raises `NoSuchUser`.

    With sinks it is `writer`, the owner of their directory: the handlers' child runs as the same user and writes there.
    """
    if not drop or not has_any():
        return None
    if writer is None:
        return user_of(user)
    if user and user_of(user)[0] != writer[0]:
        raise NoSuchUser(f"the directory of the sinks belongs to user {writer[0]}, who has to write there")
    return writer


def reload_warning(path: str, user: int, group: int) -> str | None:
    """Return a warning if `user` cannot read `path`, which a reload reads again. Needs root. Call it before the first thread.

    A child switches to that user and asks the kernel: mode bits are not enough, because of directories and ACLs.
    """
    if os.geteuid() != 0 or not Path(path).exists():
        return None
    child = os.fork()
    if child == 0:
        status = 2  # unknown: root may not switch to another user here
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
    """Return the capabilities that a running source needs. Before Linux 5.19, reading maps needs one."""
    if release.version() >= (5, 19):
        return set()
    return {CAP_BPF} if release.version() >= (5, 8) else {CAP_SYS_ADMIN}


def drop(user: int, group: int, keep: Iterable[int]) -> None:
    """Switch to `user` if root, and drop all capabilities but `keep`. Call it before the first thread: capset(2) affects one thread.

    Raises `OSError`, or `NoSuchUser` if root cannot switch. Then the exporter must not serve.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    kept = sum(1 << number for number in keep) & permitted()
    if os.geteuid() == 0:
        check(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
        try:
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
        except OSError as error:  # e.g. without CAP_SETUID and CAP_SETGID, or with no such user in the user namespace
            why = (error.strerror or str(error)).lower()
            how = "grant CAP_SETUID and CAP_SETGID, start as another user, or set security.drop_privileges: false"
            raise NoSuchUser(f"cannot switch to user {user} ({why}): {how}") from None
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)  # fails before Linux 4.3, which has none
    set_capabilities(libc, kept)
    check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    check(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))  # a handler of the same user must not trace us or take our descriptors


def set_capabilities(libc: ctypes.CDLL, wanted: int) -> None:
    """Set the effective and permitted capabilities to the mask `wanted`, and clear the inheritable ones. Raises `OSError`."""
    low, high = wanted & 0xFFFFFFFF, wanted >> 32
    check(libc.capset(struct.pack("=Ii", _VERSION_3, 0), struct.pack("=6I", low, low, 0, high, high, 0)))


def check(result: int) -> None:
    """Raise `OSError` if a call of libc failed, i.e. its result is not 0."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
