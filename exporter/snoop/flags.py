"""The flags of snoop. It imports little, since the exporter itself builds these flags too, for its help."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from exporter.config.checks import one_of, text
from exporter.config.options import Filter
from exporter.config.problems import ConfigError
from exporter.library import selection
from exporter.library.selection import Given
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

_BY = one_of(*By)
_FILE = text("the path of a file", r"[^\0]+")
_SORT = one_of(*SORTS)


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
    """Add the flags that the exporter itself does not have."""
    add = selection.adder(parser, "flags of snoop")
    selection.add_to(add)
    add("--count", "N", "exit after N lines; with --sort, print at most N lines")
    add("--duration", "TIME", "exit after this time")
    add("--from", "FILE", "read what a sink has written: an SQLite database, or JSON lines with the rotated files beside them")
    add("--since", "MOMENT", "with --from: only processes that exited then or later")
    add("--until", "MOMENT", "with --from: only processes that exited before; a time of day is the first one after --since")
    add("--sort", "COLUMN", f"print lines at the end, sorted, the longest runtime and most CPU first: {', '.join(SORTS)}", SORTS)
    add("--wide", "", "print all columns, and lines as long as they are, also on a terminal")
    add(ARGS, "", "show arguments without known secrets; with --url, those that this exporter tells (records.arguments)")
    add("--json", "", "print JSON objects, one on each line, with the keys of /api/v1/short-processes")
    add("--tree", "", "print nothing but who started what, as a tree, at the end")
    about = f"print the same at the end as folded stacks, for flamegraph.pl and speedscope; VALUE is {', '.join(By)} (the latter in us)"
    add("--folded", "VALUE", about, By, nargs="?", const=str(By.PROCESSES))


def options(given: Mapping[str, Any]) -> Options:
    """Return the options that the given flags (by name) set. Raises `ConfigError`."""
    flags = Given(given)
    url = flags.url()
    _refuse_contradictions(flags)
    wanted = flags.filter()
    now = datetime.now().astimezone()
    since_ns = flags.read("--since", moments.check(now), 0)
    until_ns = flags.read("--until", moments.check(now, since_ns if "--since" in given else None), FOREVER_NS)
    if since_ns >= until_ns:
        flags.problems.append("--until is not after --since")
    found = Options(
        filter=wanted,
        json="--json" in given,
        args=ARGS in given,
        tree="--tree" in given,
        folded=None if (by := flags.read("--folded", _BY)) is None else By(by),
        count=flags.read("--count", selection.COUNT),
        duration_seconds=flags.read("--duration", selection.TIME),
        url=url,
        file=flags.read("--from", _FILE),
        since_ns=since_ns,
        until_ns=until_ns,
        sort=flags.read("--sort", _SORT),
        wide="--wide" in given,
    )
    flags.finish()
    return found


def _refuse_contradictions(flags: Given) -> None:
    given = flags.given
    flags.refuse("--from", (*selection.OWN_SOURCE, "--url", "--duration"), "the file has what was recorded")
    for flag in ("--since", "--until"):
        if flag in given and "--from" not in given:
            raise ConfigError(f"{flag} needs --from: snoop shows the past only from the file of a sink")
    for one_of_them in (("--json", "--tree", "--folded"), ("--tree", "--folded", "--sort"), ("--json", "--wide")):
        forms = [name for name in one_of_them if name in given]
        if len(forms) > 1:
            raise ConfigError(f"set either {' or '.join(forms)}, not both")
