"""A file with HTTP headers, such as a token, that only its owner may read. It is read again when it changes."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection
from pathlib import Path

from exporter.handlers.trust import refusal

_MOST_BYTES = 16 * 1024
_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}):[ \t]*([!-~][ -~]*)")


def secret_refusal(path: str, owners: Collection[int]) -> str | None:
    """Return why a file is no place for a secret, or None: others may neither read it nor change it or its way."""
    if reason := refusal(path, owners):
        return reason
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        return (error.strerror or str(error)).lower()
    if not stat.S_ISREG(mode):
        return "not a file"
    if mode & stat.S_IRWXO:
        return f"others can read it (mode {stat.S_IMODE(mode):o}): chmod 0600"
    return None


class HeadersFile:
    """Lines of the form `Name: value`. Empty lines and lines that begin with # are skipped."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._headers: dict[str, str] = {}

    def read(self) -> dict[str, str]:
        """Return the headers. Raises `OSError`, or `ValueError` with a sentence that contains nothing of the file."""
        found = Path(self._path).stat()
        seen = found.st_mtime_ns, found.st_ino, found.st_size, found.st_mode, found.st_uid
        if seen != self._seen:
            if reason := secret_refusal(self._path, (os.geteuid(),)):
                raise ValueError(reason)
            with Path(self._path).open("rb") as file:
                self._headers = parsed(file.read(_MOST_BYTES + 1))
            self._seen = seen
        return self._headers


def parsed(data: bytes) -> dict[str, str]:
    """Return the headers in such a file. Raises `ValueError`."""
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES} bytes")
    headers = {}
    for number, line in enumerate(data.decode("ascii", "replace").splitlines(), 1):
        text = line.strip()
        if text and not text.startswith("#"):
            match = _LINE.fullmatch(text)
            if match is None:
                raise ValueError(f"line {number} is not of the form `Name: value`")
            headers[match[1]] = match[2]
    return headers
