"""The arguments of a process. They stay one piece of bytes, since a list of many small ones takes many times the memory."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple, Self

MOST_BYTES = 512
"""Bytes of all arguments that are kept: as in `bpf/lifecycle.h`."""


class Wanted(StrEnum):
    """What records tell of arguments."""

    OFF = "off"
    NAMES = "names"
    FULL = "full"


class Arguments(NamedTuple):
    text: bytes
    """The program's own name, and the others. Zeros separate them."""
    cut: bool
    """Whether more bytes follow, of the last one or of others."""

    @property
    def words(self) -> list[bytes]:
        """Return the arguments, the program's own name first."""
        return self.text.split(b"\0")

    def replaced(self, words: Iterable[bytes]) -> Self:
        """Return other arguments, as much cut as these."""
        return self._replace(text=b"\0".join(words))


def first(text: bytes, size: int) -> Arguments | None:
    """Return the first of `size` bytes of arguments, each with a zero after it; None if there are none, not even a name."""
    return Arguments(text[: min(size, MOST_BYTES)].removesuffix(b"\0"), cut=size > MOST_BYTES) if size else None
