"""What is wrong with a configuration, in words: all problems of a file at once, each on one line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

MOST_TOLD = 10
"""Problems of one file that are told; the others are counted."""

_MOST_SHOWN = 60


class Problem(NamedTuple):
    reason: str
    at: str = ""
    """Path in the checked value, such as `scan.interval_seconds` or `[3]`."""
    known: tuple[str, ...] = ()
    """For an unknown key: the keys that are known there."""

    def inside(self, name: str) -> Problem:
        """Return the same problem with the path seen from what holds `name`."""
        dot = "." if self.at and not self.at.startswith("[") else ""
        return self._replace(at=f"{short(name)}{dot}{self.at}")


class InvalidValue(Exception):
    """A value is not allowed, for one reason or several."""

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = [Problem(each) if isinstance(each, str) else each for each in problems]
        super().__init__("; ".join(f"{each.at}: {each.reason}" if each.at else each.reason for each in self.problems[:MOST_TOLD]))


class ConfigError(Exception):
    """The configuration cannot be used. `lines` has its problems, one on each; the message has them all on one."""

    def __init__(self, *problems: str) -> None:
        more = len(problems) - MOST_TOLD
        self.lines = [one_line(each) for each in problems[:MOST_TOLD]] + ([f"and {more} more"] if more > 0 else [])
        super().__init__("; ".join(self.lines))
        self.problems = problems


class Gatherer:
    """Goes on after a problem, to find the others too."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Keep the problems of what is read in this context, with `name` before their paths."""
        try:
            yield
        except InvalidValue as invalid:
            self.problems += (each.inside(name) for each in invalid.problems)


@contextlib.contextmanager
def gathering() -> Iterator[Gatherer]:
    """Raise one `InvalidValue`, at the end, for all problems that were gathered."""
    gatherer = Gatherer()
    yield gatherer
    if gatherer.problems:
        raise InvalidValue(*gatherer.problems)


def shown(value: object) -> str:
    """Return a value of a file on one short line, much as YAML writes it."""
    match value:
        case None | bool():
            return json.dumps(value)
        case dict() | list():
            return f"a {'mapping' if isinstance(value, dict) else 'list'}"
        case int() if abs(value) >= 10**_MOST_SHOWN:
            return "an integer of very many digits"
        case int() | float():
            return str(value)
    return f"'{short(str(value))}'"


def short(words: str) -> str:
    """Return any text on one line, cut, without what a terminal takes for a command."""
    return one_line(words if len(words) <= _MOST_SHOWN else f"{words[:_MOST_SHOWN]}...")


def one_line(words: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in words)


def near(word: object, known: Iterable[str]) -> str | None:
    """Return the known word that is most like this one, if any is."""
    import difflib  # noqa: PLC0415 - only a mistake needs it

    found = difflib.get_close_matches(word[:_MOST_SHOWN], known, n=1) if isinstance(word, str) else []
    return found[0] if found else None


def suggestion(word: object, known: Iterable[str]) -> str:
    """Return a question to append to a message, where a known word is near."""
    found = near(word, known)
    return f" (did you mean {found}?)" if found else ""
