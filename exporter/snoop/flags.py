"""The flags of snoop. It imports little, since the exporter itself builds these flags too, for its help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from exporter.config.checks import Check, duration, list_of, one_of, text
from exporter.config.globs import GLOBS
from exporter.config.options import PIDS, UIDS, Filter
from exporter.config.problems import ConfigError, InvalidValue, shown
from exporter.model import Outcome
from exporter.records.fields import snoop_columns
from exporter.records.record import FIELDS
from exporter.records.tree import By
from exporter.snoop import moments

FOREVER_NS = 2**63 - 1
ARGS = "--args"
"""The flag of the column of arguments."""
_COLUMNS = "\n".join(f"  {column.title:<9} {column.about.replace('`', '')}" for column in snoop_columns(FIELDS))
SORTS = {each.title.lower(): each for each in snoop_columns(FIELDS) if not each.flag}
"""The columns that lines can be sorted by."""
ABOUT = f"""Print short processes as they exit, one on each line, until Ctrl-C, --count or --duration, and then a summary by comm.

columns:
{_COLUMNS}
A field that the active mode cannot know is shown as -. A terminal shows the columns that fit; --wide shows all."""

EPILOG = """A TIME is in seconds, or has a unit: us, ms, s, m or h. A MOMENT is a time of day (03:10), a date (2030-01-31), both
(2030-01-31T03:10), or a TIME ago (10m). A GLOB is one of the shell, so quote it: * stands for any text, ? for one
character, [a-z] for one of a set, [!a-z] for any other, [[] for [. Only errors are logged, unless --log.level is set.

examples:
  shortproc-exporter snoop                                   what does top not show?
  shortproc-exporter snoop --parent=make --max-runtime=5ms
  shortproc-exporter snoop --outcome=error --outcome=signal  only failures
  shortproc-exporter snoop --args --parent=cron
  shortproc-exporter snoop --duration=10s --json > processes.jsonl
  shortproc-exporter snoop --duration=10s --tree             who starts them?
  shortproc-exporter snoop --url=http://localhost:10199      from a running exporter; needs no privilege
  shortproc-exporter snoop --from=/var/lib/shortproc/records.db --since=03:10 --until=03:15
  shortproc-exporter snoop --from=/var/lib/shortproc/records.jsonl --since=1h --sort=cpu --count=20

exit status: 0 after --count or --duration, 130 after Ctrl-C, 143 after SIGTERM, 141 if the reader of the output exited,
1 if the exporter at --url, the file or the output was lost, 2 for bad usage or configuration, or if the mode cannot run"""

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
_OWN_SOURCE = ("--config.file", "--mode", "--no-ebpf", "--fast-scan", "--path.procfs")
_TIME = duration(0, 1000 * 3600)
_OUTCOMES = list_of(one_of(*Outcome), 1000)
_BY = one_of(*By)


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


_FILE = text("the path of a file", r"[^\0]+")
_SORT = one_of(*SORTS)
_COUNT = Check(_count, {}, "a whole number above 0")
_URL = Check(_url, {}, "a URL")


@dataclass(frozen=True, slots=True)
class Options:
    filter: Filter = field(default_factory=Filter)
    json: bool = False
    args: bool = False
    tree: bool = False
    folded: By | None = None
    count: int | None = None
    duration_seconds: float | None = None
    url: str | None = None
    file: str | None = None
    since_ns: int = 0
    until_ns: int = FOREVER_NS
    sort: str | None = None
    wide: bool = False

    @property
    def at_end(self) -> bool:
        """Whether lines are printed at the end only."""
        return self.sums_only or self.sort is not None

    @property
    def sums_only(self) -> bool:
        """Whether nothing is printed before the end."""
        return self.tree or self.folded is not None


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the flags that only snoop has."""
    flags = parser.add_argument_group("flags of snoop")

    def add(name: str, metavar: str, about: str, **how: Any) -> None:
        flags.add_argument(name, dest=name, default=argparse.SUPPRESS, metavar=metavar, help=about, **how)

    for name, about in _GLOBS.items():
        add(f"--{name}", "GLOB", f"{about} (may be repeated)", action="append")
    for name, (_, about) in _NUMBERS.items():
        add(f"--{name}", "N", f"{about} (may be repeated)", action="append")
    add("--outcome", "OUTCOME", f"only processes that exited like this: {', '.join(Outcome)} (may be repeated)", action="append")
    add("--min-runtime", "TIME", "minimum runtime")
    add("--max-runtime", "TIME", "maximum runtime")
    add("--count", "N", "exit after N lines; with --sort, print at most N lines")
    add("--duration", "TIME", "exit after this time")
    add("--url", "URL", "read from a running exporter, e.g. http://localhost:10199")
    add("--from", "FILE", "read what a sink has written: an SQLite database, or JSON lines with the rotated files beside them")
    add("--since", "MOMENT", "with --from: only processes that exited then or later")
    add("--until", "MOMENT", "with --from: only processes that exited before; a time of day is the first one after --since")
    add("--sort", "COLUMN", f"print lines at the end, sorted, the longest runtime and most CPU first: {', '.join(SORTS)}")
    for name, about in (
        ("--wide", "print all columns, and lines as long as they are, also on a terminal"),
        (ARGS, "show arguments without known secrets; with --url, those that this exporter tells (records.arguments)"),
        ("--json", "print JSON objects, one on each line, with the keys of /api/v1/short-processes"),
        ("--tree", "print nothing but who started what, as a tree, at the end"),
    ):
        flags.add_argument(name, dest=name, default=argparse.SUPPRESS, action="store_true", help=about)
    flags.add_argument(
        "--folded",
        dest="--folded",
        default=argparse.SUPPRESS,
        nargs="?",
        const=str(By.PROCESSES),
        metavar="VALUE",
        help=f"print the same at the end as folded stacks, for flamegraph.pl and speedscope; VALUE is {', '.join(By)} (the latter in us)",
    )


def options(given: Mapping[str, Any]) -> Options:
    """Return the options that the given flags (by name) set. Raises `ConfigError`."""
    _refuse_contradictions(given)
    problems: list[str] = []

    def read(name: str, check: Check, default: Any = None) -> Any:
        try:
            return check.read(given[name]) if name in given else default
        except InvalidValue as invalid:
            problems.extend(f"{name}: {each.reason}" for each in invalid.problems)
            return default

    anything = Filter()
    least = read("--min-runtime", _TIME, anything.min_runtime_seconds)
    most = read("--max-runtime", _TIME, anything.max_runtime_seconds)
    if least > most and "--max-runtime" in given:
        problems.append("--min-runtime is longer than --max-runtime")
    now = datetime.now().astimezone()
    since_ns = read("--since", moments.check(now), 0)
    until_ns = read("--until", moments.check(now, since_ns if "--since" in given else None), FOREVER_NS)
    if since_ns >= until_ns:
        problems.append("--until is not after --since")
    found = Options(
        filter=Filter(
            **{name: read(f"--{name}", GLOBS, ()) for name in _GLOBS},
            **{name: read(f"--{name}", _whole_numbers(each), ()) for name, (each, _) in _NUMBERS.items()},
            outcome=read("--outcome", _OUTCOMES, ()),
            min_runtime_seconds=least,
            max_runtime_seconds=most,
        ),
        json="--json" in given,
        args=ARGS in given,
        tree="--tree" in given,
        folded=None if (by := read("--folded", _BY)) is None else By(by),
        count=read("--count", _COUNT),
        duration_seconds=read("--duration", _TIME),
        url=read("--url", _URL),
        file=read("--from", _FILE),
        since_ns=since_ns,
        until_ns=until_ns,
        sort=read("--sort", _SORT),
        wide="--wide" in given,
    )
    if problems:
        raise ConfigError(*problems)
    return found


def _refuse_contradictions(given: Mapping[str, Any]) -> None:
    for source, why in (("--url", "the exporter at --url has its own configuration"), ("--from", "the file has what was recorded")):
        others = (*_OWN_SOURCE, *(("--url", "--duration") if source == "--from" else ()))
        if source in given and (other := next((name for name in others if name in given), None)):
            raise ConfigError(f"set either {source} or {other}, not both: {why}")
    for flag in ("--since", "--until"):
        if flag in given and "--from" not in given:
            raise ConfigError(f"{flag} needs --from: snoop shows the past only from the file of a sink")
    for one_of_them in (("--json", "--tree", "--folded"), ("--tree", "--folded", "--sort"), ("--json", "--wide")):
        forms = [name for name in one_of_them if name in given]
        if len(forms) > 1:
            raise ConfigError(f"set either {' or '.join(forms)}, not both")


def beyond(wanted: Filter, threshold_seconds: float) -> str | None:
    """Return a warning if the filter asks for runtimes that no short process has. Raises `ConfigError` if nothing would be shown."""
    limit = f"only processes with a runtime below {threshold_seconds:g} s are short (detection.short_threshold_seconds)"
    if wanted.min_runtime_seconds >= threshold_seconds:
        raise ConfigError(f"--min-runtime: nothing would be shown: {limit}")
    if threshold_seconds < wanted.max_runtime_seconds != Filter().max_runtime_seconds:
        return f"--max-runtime has no effect: {limit}"
    return None
