"""The sink `jsonl`: writes one JSON object per line. Rotates the file by size and age to `.1`, `.2`, and so on."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import UTC, datetime
from itertools import pairwise

from exporter.handlers.sink import FileSink, is_same, open_file, open_folder
from exporter.records.encoding import line

_PIECE = 500
_TIME_BEGINS, _TIME_ENDS = len('{"ended_at":"'), len('{"ended_at":"2026-01-02T03:04:05')


class Jsonl(FileSink):
    """Appends whole lines. If the file is renamed, it makes a new one."""

    def __init__(self, path: str, max_bytes: int, max_age_seconds: float, keep: int) -> None:
        super().__init__(path)
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds
        self._keep = keep
        self._name = self.path.name
        self._folder = self._file = -1
        self._began = 0.0
        """Unix time of the first record in the file."""

    def store(self) -> None:
        while self.pending:
            piece = self.pending[:_PIECE]
            data = "".join(f"{line(record)}\n" for record in piece).encode()
            self._prepare(len(data))
            self._append(data)
            self.stored(len(piece))

    def maintain(self) -> None:
        self._prepare(0)

    def release(self) -> None:
        for fd in (self._file, self._folder):
            if fd >= 0:
                os.close(fd)
        self._file = self._folder = -1

    def _prepare(self, more: int) -> None:
        """Open or rotate the file so that `more` bytes can be written."""
        if self._file < 0 or not is_same(self._file, self._name, self._folder):
            self._open()
        size = os.fstat(self._file).st_size
        if size and (size + more > self._max_bytes or time.time() - self._began > self._max_age_seconds):
            self._rotate()
            self._open()

    def _open(self) -> None:
        self.release()
        self._folder = open_folder(self.path)
        self._file = open_file(self._name, self._folder, os.O_APPEND)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")  # the previous writer was killed in the middle of a line
        self._began = self._first_time() if size else time.time()

    def _first_time(self) -> float:
        first = os.pread(self._file, _TIME_ENDS, 0)[_TIME_BEGINS:]
        try:
            return datetime.fromisoformat(first.decode()).replace(tzinfo=UTC).timestamp()
        except ValueError:
            return os.fstat(self._file).st_mtime

    def _append(self, data: bytes) -> None:
        before = os.fstat(self._file).st_size
        if not before:
            self._began = time.time()
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, before)  # all of `data` will be written again
            raise

    def _rotate(self) -> None:
        names = [self._name, *(f"{self._name}.{number}" for number in range(1, self._keep + 1))]
        for old, new in reversed(list(pairwise(names))):
            with contextlib.suppress(FileNotFoundError):
                os.rename(old, new, src_dir_fd=self._folder, dst_dir_fd=self._folder)
