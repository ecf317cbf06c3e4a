"""The flags of top. It imports little, since the exporter itself builds these flags too, for its help."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter.config.checks import duration, one_of
from exporter.config.options import Filter
from exporter.library import selection
from exporter.library.selection import Given
from exporter.top.state import KEYS, By, Sort

_KEYS = "\n".join(f"  {'space' if each.key == ' ' else each.key:<9} {each.about}" for each in KEYS)
ABOUT = f"""Show which short processes there are now, like htop: how many a second, how long they run, how they exit, who
starts them.
Numbers of the head are exact. Rows are made of single records; if some came too fast to be read, a line says how many.

keys:
{_KEYS}
  arrows, PgUp, PgDn, Home: scroll"""

EPILOG = """A TIME is in seconds, or has a unit: us, ms, s, m or h. A GLOB is one of the shell, so quote it.
Only errors are logged, unless --log.level is set.

examples:
  shortproc-exporter top
  shortproc-exporter top --by=owner --sort=cpu
  shortproc-exporter top --url=http://localhost:10199        from a running exporter; needs no privilege
  shortproc-exporter top --once --duration=10s --by=parent   a table for scripts

exit status: 0 after q, Ctrl-C or --once, 143 after SIGTERM, 1 if the exporter at --url or the output was lost, 2 for
bad usage or configuration, or if the mode cannot run"""

_DURATION = duration(1, 1000 * 3600)


@dataclass(frozen=True, slots=True)
class Options:
    filter: Filter = field(default_factory=Filter)
    url: str | None = None
    by: By = By.NAME
    sort: Sort = Sort.RATE
    once: bool = False
    duration_seconds: float = 5.0
    count: int = 1000


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the flags that the exporter itself does not have."""
    add = selection.adder(parser, "flags of top")
    selection.add_to(add)
    add("--by", "KIND", f"what a row is: {', '.join(By)} (default {Options().by})", By)
    add("--sort", "VALUE", f"what rows are sorted by: {', '.join(Sort)} (default {Options().sort})", Sort)
    add("--once", "", "print the table once, with all columns, and exit")
    add("--duration", "TIME", f"with --once: how long to observe (default {Options().duration_seconds:g}s)")
    add("--count", "N", f"with --once: maximum number of rows (default {Options().count})")


def options(given: Mapping[str, Any]) -> Options:
    """Return the options that the given flags (by name) set. Raises `ConfigError`."""
    flags = Given(given)
    plain = Options()
    url, wanted = flags.url(), flags.filter()
    flags.problems += (f"{flag} needs --once" for flag in ("--duration", "--count") if flag in given and "--once" not in given)
    found = Options(
        filter=wanted,
        url=url,
        by=By(flags.read("--by", one_of(*By), plain.by)),
        sort=Sort(flags.read("--sort", one_of(*Sort), plain.sort)),
        once="--once" in given,
        duration_seconds=flags.read("--duration", _DURATION, plain.duration_seconds),
        count=flags.read("--count", selection.COUNT, plain.count),
    )
    flags.finish()
    return found
