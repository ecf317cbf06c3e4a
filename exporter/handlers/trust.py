"""Checks that other users cannot change a file: neither handlers and their configuration, nor the files of sinks."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path, PurePosixPath

_MOST_LINKS = 40


def refusal(path: str, owners: Collection[int]) -> str | None:
    """Return why an absolute path is not trusted, or None if it is.

    The path, all directories above it and all links must belong to root or to one of `owners`, and other users must not be able to write
    there. A directory with the sticky bit (/tmp) is allowed above: users cannot replace each other's files in it.
    """
    trusted = {0, *owners}
    todo = list(reversed(PurePosixPath(path).parts[1:]))
    at, links = Path("/"), 0
    reason = _wrong(at, at.lstat(), trusted, on_the_way=bool(todo))
    while todo and reason is None:
        name = todo.pop()
        if name == "..":
            at = at.parent
            continue
        try:
            found = (at / name).lstat()
            if stat.S_ISLNK(found.st_mode):
                links += 1
                if found.st_uid not in trusted or links > _MOST_LINKS:
                    return f"the link {at / name} belongs to uid {found.st_uid}"
                target = PurePosixPath((at / name).readlink())
                todo += reversed(target.parts[1:] if target.is_absolute() else target.parts)
                at = Path("/") if target.is_absolute() else at
                continue
        except OSError as error:
            return f"{at / name}: {(error.strerror or str(error)).lower()}"
        at /= name
        reason = _wrong(at, found, trusted, on_the_way=bool(todo))
    return reason


def _wrong(path: Path, found: os.stat_result, trusted: set[int], *, on_the_way: bool) -> str | None:
    if found.st_uid not in trusted:
        return f"{path} belongs to uid {found.st_uid}"
    sticky = on_the_way and found.st_mode & stat.S_ISVTX
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        return f"{path} can be written by others (mode {stat.S_IMODE(found.st_mode):o})"
    return None
