"""Error messages for a configuration: all problems of a file at once, each on one line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

MOST_REPORTED = 10
"""Problems of one file that are reported; the others are counted."""

_MOST_SHOWN = 60


class Problem(NamedTuple):
    reason: str
    at: str = ""
    """Path in the checked value, such as `scan.interval_seconds` or `[3]`."""
    known: tuple[str, ...] = ()
    """For an unknown key: the keys that are known there."""

    def inside(self, name: str) -> Problem:
        """Return the same problem with `name` before its path."""
        dot = "." if self.at and not self.at.startswith("[") else ""
        return self._replace(at=f"{short(name)}{dot}{self.at}")


class InvalidValue(Exception):
    """A value is not allowed, for one reason or several."""

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = [Problem(each) if isinstance(each, str) else each for each in problems]
        super().__init__("; ".join(f"{each.at}: {each.reason}" if each.at else each.reason for each in self.problems[:MOST_REPORTED]))


class ConfigError(Exception):
    """The configuration cannot be used. `lines` has one problem each; the message has all of them in one line."""

    def __init__(self, *problems: str) -> None:
        more = len(problems) - MOST_REPORTED
        self.lines = [one_line(each) for each in problems[:MOST_REPORTED]] + ([f"and {more} more"] if more > 0 else [])
        super().__init__("; ".join(self.lines))
        self.problems = problems


class Gatherer:
    """Collects problems, so that a check continues after the first one."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Keep the problems raised in this context, with `name` before their paths."""
        try:
            yield
        except InvalidValue as invalid:
            self.problems += (each.inside(name) for each in invalid.problems)


@contextlib.contextmanager
def gathering() -> Iterator[Gatherer]:
    """Collect problems, and raise one `InvalidValue` for all of them at the end."""
    gatherer = Gatherer()
    yield gatherer
    if gatherer.problems:
        raise InvalidValue(*gatherer.problems)


def shown(value: object) -> str:
    """Return a value on one short line, roughly as YAML writes it."""
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
    """Return a text on one line, shortened, without control characters."""
    return one_line(words if len(words) <= _MOST_SHOWN else f"{words[:_MOST_SHOWN]}...")


def one_line(words: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in words)


def closest(word: object, known: Iterable[str]) -> str | None:
    """Return the known word that is most similar to `word`, or None if none is similar."""
    import difflib  # noqa: PLC0415 - only a mistake needs it

    found = difflib.get_close_matches(word[:_MOST_SHOWN], known, n=1) if isinstance(word, str) else []
    return found[0] if found else None


def suggestion(word: object, known: Iterable[str]) -> str:
    """Return " (did you mean ...?)" to append to a message, or nothing if no known word is similar."""
    found = closest(word, known)
    return f" (did you mean {found}?)" if found else ""
