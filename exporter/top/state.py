"""What the user of `top` has chosen. Keys change it; nothing here knows a terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from exporter.config.globs import LONGEST, matcher
from exporter.records.shown import NOTHING, label, word

if TYPE_CHECKING:  # the exporter itself imports this module, for its help
    from exporter.top.activity import Group

WINDOWS = (10, 60, None)
"""Seconds that rows are summed over; None: since the start."""


class Sort(StrEnum):
    """What rows are sorted by, the most first."""

    RATE = "rate"
    FAILED = "failed"
    CPU = "cpu"
    P99 = "p99"


class By(StrEnum):
    """What a row is."""

    NAME = "name"
    OWNER = "owner"
    SPAWNER = "spawner"
    USER = "user"
    PARENT = "parent"
    TREE = "tree"


NAMES: dict[By, Callable[[Group], str]] = {
    By.NAME: lambda group: word(group.comm),
    By.PARENT: lambda group: word(group.parent),
    By.SPAWNER: lambda group: word(group.spawner),
    By.USER: lambda group: label(group.user),
    By.OWNER: lambda group: group.owner or NOTHING,
}
"""The name of a group in each kind of row but the tree: one printable word."""


@dataclass(frozen=True, slots=True)
class State:
    by: By = By.NAME
    sort: Sort = Sort.RATE
    window: int | None = WINDOWS[0]
    filter: str = ""
    """Text or a glob; empty for none."""
    typing: str | None = None
    """The filter that is being typed; None while none is."""
    paused: bool = False
    first: int = 0
    """The row at the top."""
    quits: bool = False

    def accepts(self) -> Callable[[Group], bool]:
        """Return whether one of a group's names has the text of the filter, or matches its glob."""
        wanted = self.filter if self.typing is None else self.typing
        if not wanted:
            return lambda _: True
        matches = matcher([wanted if any(char in wanted for char in "*?[") else f"*{wanted}*"])
        return lambda group: any(matches(name(group)) for name in NAMES.values())


class Key(NamedTuple):
    """A key, and what it does."""

    key: str
    label: str
    about: str
    apply: Callable[[State], State]


def _by(by: By) -> Callable[[State], State]:
    return lambda state: replace(state, by=by, first=0)


def _sort(sort: Sort) -> Callable[[State], State]:
    return lambda state: replace(state, sort=sort, first=0)


def _other_window(state: State) -> State:
    return replace(state, window=WINDOWS[(WINDOWS.index(state.window) + 1) % len(WINDOWS)])


def _begin_typing(state: State) -> State:
    return replace(state, typing=state.filter)


KEYS = (
    Key("n", "name", "rows are command names", _by(By.NAME)),
    Key("o", "owner", "rows are owners: systemd units, containers, pods", _by(By.OWNER)),
    Key("s", "spawner", "rows are spawners: the nearest ancestors that are not short-lived", _by(By.SPAWNER)),
    Key("u", "user", "rows are users", _by(By.USER)),
    Key("p", "parent", "rows are parents", _by(By.PARENT)),
    Key("t", "tree", "rows are the tree of who starts what", _by(By.TREE)),
    Key("w", "window", "another window: the last 10 s, the last 60 s, since the start", _other_window),
    Key("/", "filter", "filter by a text or glob in any of these names; Enter keeps it, Esc removes it", _begin_typing),
    Key("q", "quit", "quit", lambda state: replace(state, quits=True)),
    Key(" ", "pause", "pause, and go on", lambda state: replace(state, paused=not state.paused)),
    Key("r", "rate", "sort by rate", _sort(Sort.RATE)),
    Key("f", "failed", "sort by failures", _sort(Sort.FAILED)),
    Key("c", "cpu", "sort by CPU", _sort(Sort.CPU)),
    Key("l", "p99", "sort by the 99th percentile of runtimes", _sort(Sort.P99)),
)
"""All keys but those that scroll."""
_KEYS = {each.key: each for each in KEYS}
_SCROLL = {"KEY_UP": -1, "KEY_DOWN": 1, "KEY_PPAGE": -10, "KEY_NPAGE": 10, "KEY_HOME": -(10**9)}
_ENTER, _ESCAPE, _BACKSPACE = ("\n", "\r", "KEY_ENTER"), "\x1b", ("\x7f", "\b", "KEY_BACKSPACE")


def pressed(state: State, key: str) -> State:
    """Return the state after a key: a character, or a name of curses, such as `KEY_UP`. Unknown keys change nothing."""
    if state.typing is not None:
        return _typed(state, state.typing, key)
    if key in _SCROLL:
        return replace(state, first=max(0, state.first + _SCROLL[key]))
    if key == _ESCAPE:
        return replace(state, filter="", first=0)
    return _KEYS[key].apply(state) if key in _KEYS else state


def _typed(state: State, text: str, key: str) -> State:
    if key in _ENTER:
        return replace(state, filter=text, typing=None, first=0)
    if key == _ESCAPE:
        return replace(state, filter="", typing=None, first=0)
    if key in _BACKSPACE:
        return replace(state, typing=text[:-1])
    if len(key) == 1 and key.isprintable() and len(text) < LONGEST - 2:
        return replace(state, typing=text + key)
    return state
