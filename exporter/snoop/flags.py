"""What the command line of snoop says, checked. Imports little: the exporter itself runs without the rest."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, field
from decimal import Decimal
from urllib.parse import urlsplit

from exporter.config.checks import one_of
from exporter.config.options import Config, Filter
from exporter.config.problems import ConfigError, InvalidValue, shown
from exporter.model import NS, Outcome

USAGE = "shortproc-exporter snoop [flags]"

ABOUT = """Print short processes as they end, a line for each, until Ctrl-C, which prints a summary by comm.

columns:
  TIME      when it ended, by the local clock
  PID PPID  its process id, and its parent's
  COMM      its name
  RUNTIME   from its fork to its end
  CPU       user and system time of all its threads
  OUTCOME   0, exit N, or the signal that killed it
  PARENT    its parent's name
  EXE       path of the executable, as its last exec named it
What the mode in use can't know is shown as -."""

EPILOG = """A time is in seconds, or ends with us, ms, s, m or h. A glob is one of the shell; quote it.
Only errors are logged unless --log.level says more.

examples:
  shortproc-exporter snoop                                   what is it that top doesn't show?
  shortproc-exporter snoop --parent=make --max-runtime=5ms
  shortproc-exporter snoop --outcome=error --outcome=signal  only what failed
  shortproc-exporter snoop --duration=10s --json > processes.jsonl
  shortproc-exporter snoop --url=http://localhost:10199      from a running exporter; needs no privilege

exit status: 0 after --count or --duration, 130 after Ctrl-C, 143 after SIGTERM, 141 where nobody reads the output,
1 the exporter at --url or the output was lost, 2 bad usage or configuration, or the mode asked for can't run here."""

_UNITS = {"us": 1000, "ms": 1000_000, "": NS, "s": NS, "m": 60 * NS, "h": 3600 * NS}
_TIME = re.compile(rf"([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?)({'|'.join(_UNITS)})")
_COUNT = re.compile(r"[1-9][0-9]{0,17}")
_OWN_SOURCE = ("config.file", "mode", "no_ebpf", "fast_scan", "path.procfs")
_LONGEST_NS = 1000 * 3600 * NS


@dataclass(frozen=True, slots=True)
class Options:
    filter: Filter = field(default_factory=Filter)
    json: bool = False
    count: int | None = None
    duration_seconds: float | None = None
    url: str | None = None


def add_to(parser: argparse.ArgumentParser) -> None:
    """Make it the parser of snoop."""
    parser.usage, parser.description, parser.epilog = USAGE, ABOUT, EPILOG
    flags = parser.add_argument_group("flags of snoop")
    for flag, what, about in (
        ("--comm", "GLOB", "only those of this name"),
        ("--parent", "GLOB", "only those whose parent has this name"),
        ("--outcome", "OUTCOME", f"only those that ended so: {', '.join(Outcome)}"),
    ):
        flags.add_argument(flag, metavar=what, action="append", default=[], help=f"{about} (may be repeated)")
    flags.add_argument("--min-runtime", metavar="TIME", help="only those that lived at least so long")
    flags.add_argument("--max-runtime", metavar="TIME", help="only those that lived at most so long")
    flags.add_argument("--count", metavar="N", help="end after so many lines")
    flags.add_argument("--duration", metavar="TIME", help="end after this time")
    flags.add_argument("--json", action="store_true", help="print JSON objects, one a line, with the keys of /api/v1/short-processes")
    flags.add_argument("--url", metavar="URL", help="let a running exporter look, at such as http://localhost:10199")


def options(args: argparse.Namespace) -> Options:
    """Check what the flags say, or raise `ConfigError`."""
    if args.url is not None and (other := next((name for name in _OWN_SOURCE if vars(args)[name]), None)):
        raise ConfigError(f"--url and --{other.replace('_', '-')} contradict each other")
    least, most = _ns(args.min_runtime, "--min-runtime"), _ns(args.max_runtime, "--max-runtime")
    duration = _ns(args.duration, "--duration")
    if least is not None and most is not None and least > most:
        raise ConfigError("--min-runtime is longer than --max-runtime")
    default = Filter()
    return Options(
        filter=Filter(
            comm=_globs(args.comm, "--comm"),
            parent=_globs(args.parent, "--parent"),
            outcome=_outcomes(args.outcome),
            min_runtime_seconds=default.min_runtime_seconds if least is None else least / NS,
            max_runtime_seconds=default.max_runtime_seconds if most is None else most / NS,
        ),
        json=args.json,
        count=_count(args.count),
        duration_seconds=None if duration is None else duration / NS,
        url=_url(args.url),
    )


def beyond(wanted: Filter, config: Config) -> str | None:
    """Warn of a runtime that no short process has; raise `ConfigError` where nothing at all would be shown."""
    threshold = config.detection.short_threshold_seconds
    limit = f"only processes below {threshold:g} s are short (detection.short_threshold_seconds)"
    if wanted.min_runtime_seconds >= threshold:
        raise ConfigError(f"--min-runtime: nothing would be shown: {limit}")
    if threshold < wanted.max_runtime_seconds != Filter().max_runtime_seconds:
        return f"--max-runtime changes nothing: {limit}"
    return None


def _ns(text: str | None, flag: str) -> int | None:
    if text is None:
        return None
    match = _TIME.fullmatch(text)
    ns = round(Decimal(match[1]) * _UNITS[match[2]]) if match else -1
    if not 0 <= ns <= _LONGEST_NS:
        raise ConfigError(f"{flag}: {shown(text)} is not a time such as 5ms, 0.5s or 2, of at most 1000h")
    return ns


def _count(text: str | None) -> int | None:
    if text is not None and not _COUNT.fullmatch(text):
        raise ConfigError(f"--count: {shown(text)} is not a whole number above 0")
    return None if text is None else int(text)


def _globs(globs: list[str], flag: str) -> tuple[str, ...]:
    if not all(globs):
        raise ConfigError(f"{flag}: '' matches nothing; a glob is wanted, such as make or python*")
    return tuple(globs)


def _outcomes(outcomes: list[str]) -> tuple[str, ...]:
    try:
        return tuple(one_of(*Outcome).read(each) for each in outcomes)
    except InvalidValue as wrong:
        raise ConfigError(f"--outcome: {wrong}") from None


def _url(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.query and not parts.fragment
    except ValueError:  # of the port, or a bracket that is not closed
        good = False
    if not good or not re.fullmatch(r"[!-~]+", text):
        raise ConfigError(f"--url: {shown(text)} is not an address such as http://localhost:10199")
    return text.rstrip("/")
