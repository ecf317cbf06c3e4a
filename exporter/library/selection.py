"""Flags that say which processes are wanted, and where they are observed: the same for all commands that show records.

It imports little, since the exporter itself builds these flags too, for its help.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from exporter.config.checks import Check, duration, list_of, one_of
from exporter.config.globs import GLOBS
from exporter.config.options import PIDS, UIDS, Filter
from exporter.config.problems import ConfigError, InvalidValue, shown
from exporter.model import Outcome

OWN_SOURCE = ("--config.file", "--mode", "--no-ebpf", "--fast-scan", "--path.procfs")
"""Flags of a source of the command's own."""
TIME = duration(0, 1000 * 3600)
_GLOBS = {
    "comm": "only processes with this comm",
    "parent": "only processes whose parent has this comm",
    "exe": "only processes with this path of the executable",
    "cgroup": "only processes in this cgroup",
    "spawner": "only processes with this spawner",
    "user": "only processes of this user",
    "unit": "only processes of this systemd unit",
    "namespace": "only processes of pods in this namespace",
    "pod": "only processes of this pod",
    "container": "only processes of this container",
}
_NUMBERS = {
    "uid": (UIDS, "only processes with this real user ID"),
    "pid": (PIDS, "only the process with this ID"),
    "ppid": (PIDS, "only processes whose parent has this ID"),
}
_OUTCOMES = list_of(one_of(*Outcome), 1000)

Add = Callable[..., None]
"""Adds a flag to a group: its name, the word for its value (empty for none) and its help."""


def adder(parser: argparse.ArgumentParser, title: str) -> Add:
    """Return a function that adds flags to a group of their own. A flag that is not given is not in the result."""
    group = parser.add_argument_group(title)

    def add(name: str, metavar: str, about: str, values: Iterable[str] = (), **how: Any) -> None:
        value: dict[str, Any] = {"metavar": metavar} if metavar else {"action": "store_true"}
        action: Any = group.add_argument(name, dest=name, default=argparse.SUPPRESS, help=about, **value, **how)
        action.values = tuple(values)  # for a shell's completion; whether a value is one of them is checked later

    return add


def add_to(add: Add) -> None:
    """Add the flags of a filter, and `--url`."""
    for name, about in _GLOBS.items():
        add(f"--{name}", "GLOB", f"{about} (may be repeated)", action="append")
    for name, (_, about) in _NUMBERS.items():
        add(f"--{name}", "N", f"{about} (may be repeated)", action="append")
    add("--outcome", "OUTCOME", f"only processes that exited like this: {', '.join(Outcome)} (may be repeated)", Outcome, action="append")
    add("--min-runtime", "TIME", "minimum runtime")
    add("--max-runtime", "TIME", "maximum runtime")
    add("--url", "URL", "read from a running exporter, e.g. http://localhost:10199")


class Given:
    """The flags on a command line, which are read one after another."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        self.problems: list[str] = []

    def read(self, name: str, check: Check, default: Any = None) -> Any:
        """Return the value of a flag; the default if it is not given, or has a problem."""
        try:
            return check.read(self.given[name]) if name in self.given else default
        except InvalidValue as invalid:
            self.problems.extend(f"{name}: {each.reason}" for each in invalid.problems)
            return default

    def filter(self) -> Filter:
        """Read the flags of a filter."""
        anything = Filter()
        least = self.read("--min-runtime", TIME, anything.min_runtime_seconds)
        most = self.read("--max-runtime", TIME, anything.max_runtime_seconds)
        if least > most and "--max-runtime" in self.given:
            self.problems.append("--min-runtime is longer than --max-runtime")
        return Filter(
            **{name: self.read(f"--{name}", GLOBS, ()) for name in _GLOBS},
            **{name: self.read(f"--{name}", _whole_numbers(each), ()) for name, (each, _) in _NUMBERS.items()},
            outcome=self.read("--outcome", _OUTCOMES, ()),
            min_runtime_seconds=least,
            max_runtime_seconds=most,
        )

    def url(self) -> str | None:
        """Read `--url`. Raises `ConfigError` if there are flags that another source needs."""
        self.refuse("--url", OWN_SOURCE, "the exporter at --url has its own configuration")
        url: str | None = self.read("--url", _URL)
        return url

    def refuse(self, flag: str, others: tuple[str, ...], why: str) -> None:
        """Raise `ConfigError` if a flag is given together with one of the others."""
        if flag in self.given and (other := next((name for name in others if name in self.given), None)):
            raise ConfigError(f"set either {flag} or {other}, not both: {why}")

    def finish(self) -> None:
        """Raise `ConfigError` if there were problems."""
        if self.problems:
            raise ConfigError(*self.problems)


def beyond(wanted: Filter, threshold_seconds: float) -> str | None:
    """Return a warning if the filter asks for runtimes that no short process has. Raises `ConfigError` if nothing would be shown."""
    limit = f"only processes with a runtime below {threshold_seconds:g} s are short (detection.short_threshold_seconds)"
    if wanted.min_runtime_seconds >= threshold_seconds:
        raise ConfigError(f"--min-runtime: nothing would be shown: {limit}")
    if threshold_seconds < wanted.max_runtime_seconds != Filter().max_runtime_seconds:
        return f"--max-runtime has no effect: {limit}"
    return None


def _count(value: object) -> int:
    if not isinstance(value, str) or not re.fullmatch("[1-9][0-9]{0,17}", value):
        raise InvalidValue(f"{shown(value)} is not a whole number above 0")
    return int(value)


def _whole_numbers(check: Check) -> Check:
    """Return a check that reads a list of numbers from a list of texts."""

    def read(value: object) -> Any:
        texts: list[str] = value if isinstance(value, list) else []
        return check.read([int(each) if re.fullmatch("[0-9]{1,18}", each) else each for each in texts])

    return Check(read, {}, check.wanted)


def _url(value: object) -> str:
    text = str(value)
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.query and not parts.fragment
    except ValueError:  # of the port, or a bracket that is not closed
        good = False
    if not good or not re.fullmatch(r"[!-~]+", text):
        raise InvalidValue(f"{shown(text)} is not a URL such as http://localhost:10199")
    return text.rstrip("/")


COUNT = Check(_count, {}, "a whole number above 0")
_URL = Check(_url, {}, "a URL")
