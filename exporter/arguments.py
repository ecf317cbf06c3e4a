"""Parses the command line: the command, its flags and its other arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn

from exporter.config import flags
from exporter.config.problems import one_line, suggestion
from exporter.model import Mode
from exporter.snoop import flags as snoop_flags
from exporter.top import flags as top_flags

NAME = "shortproc-exporter"

_WIDTH = 120
"""Most columns of help."""

_ABOUT = """Prometheus exporter for processes that are too short-lived for top, ps and a scan of /proc each second: how many there
are, how long they run, how much CPU they use, how they exit, and how many of them it missed. Without a command it
serves metrics until SIGTERM or SIGINT; SIGHUP reloads the configuration."""

_EPILOG = """Flags override the configuration file; config/exporter.yml describes every option of it.

examples:
  shortproc-exporter                                    metrics at http://localhost:10199/metrics
  shortproc-exporter --web.listen-address=127.0.0.1:9000
  shortproc-exporter --mode=ebpf_core --log.level=debug
  shortproc-exporter snoop --help                       flags of a command

exit status: 0 success, 1 cannot listen or write output, 2 bad usage or configuration, or the requested mode cannot run"""

_DOCTOR = """Start each mode for a moment. Report which modes work here, why the others don't, and which one the exporter would use."""

_DOCTOR_EPILOG = """Run it as the user, and in the container, that the exporter runs in.

examples:
  shortproc-exporter doctor
  shortproc-exporter doctor --config.file=/etc/shortproc-exporter/exporter.yml
  shortproc-exporter doctor --require=ebpf_core --json  for a tool that installs it on many hosts

exit status: 0 the exporter would start, and use the mode of --require or a better one; 1 it would not, 2 bad usage or
configuration"""

_CHECK = """Check a configuration file, its handlers and sinks, and the web configuration file that it names. Print all problems."""

_CHECK_EPILOG = """examples:
  shortproc-exporter check-config /etc/shortproc-exporter/exporter.yml
  shortproc-exporter check-config --web.config.file=web.yml

exit status: 0 the configuration is good, 2 it is not"""

Given = Mapping[str, Any]
"""The flags on the command line, by name; a flag that takes no value has True."""


class UsageError(Exception):
    """The command line cannot be used. The message is one line."""


class _UnknownCommand(UsageError):
    def __init__(self, word: str, known: Sequence[str]) -> None:
        hint = suggestion(word, known) or f": the commands are {', '.join(known)}"
        super().__init__(f"unknown command {one_line(word)}{hint}")
        self.word = word


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str, width: int = _WIDTH) -> None:
        super().__init__(prog, max_help_position=32, width=width)


class _Command(NamedTuple):
    argument: str
    """Its argument besides flags, as in its usage line."""
    summary: str
    about: str
    epilog: str


_COMMANDS = {
    "snoop": _Command("", "print short processes as they exit", snoop_flags.ABOUT, snoop_flags.EPILOG),
    "top": _Command("", "show which short processes there are now, like htop", top_flags.ABOUT, top_flags.EPILOG),
    "doctor": _Command("", "report which modes work here, and why the others don't", _DOCTOR, _DOCTOR_EPILOG),
    "check-config": _Command("[FILE]", "check a configuration file, and the files that it names", _CHECK, _CHECK_EPILOG),
}


class Arguments(NamedTuple):
    command: str
    """Empty to run the exporter itself."""
    given: Given
    files: list[str]
    help: Callable[[], str]
    """Returns what `--help` prints."""


class FlagHelp(NamedTuple):
    names: tuple[str, ...]
    """The last one is the usual one."""
    metavar: str
    """Empty for a flag without a value."""
    is_optional: bool
    """Whether the value may be left out."""
    about: str
    values: tuple[str, ...]
    """Those that there are, if they can be listed."""


class CommandHelp(NamedTuple):
    name: str
    """Empty for the exporter itself."""
    argument: str
    summary: str
    about: str
    epilog: str
    flags: tuple[FlagHelp, ...]


class _Parser(argparse.ArgumentParser):
    """A parser that raises `UsageError` instead of printing and exiting."""

    def __init__(self, **how: Any) -> None:
        super().__init__(formatter_class=_Formatter, allow_abbrev=False, add_help=False, **how)

    @property
    def flags(self) -> list[str]:
        return [name for name in self._option_string_actions if name.startswith("--")]

    @property
    def shown(self) -> tuple[FlagHelp, ...]:
        """The flags that its help shows."""
        return tuple(
            FlagHelp(tuple(each.option_strings), str(each.metavar or ""), each.nargs == "?", str(each.help), getattr(each, "values", ()))
            for each in self._actions
            if each.option_strings and each.help != argparse.SUPPRESS
        )

    def add(self, group: Any, name: str, about: str, *aliases: str, metavar: str = "", values: tuple[str, ...] = ()) -> None:
        """Add a flag. If it is not given, it is not in the result."""
        how: dict[str, Any] = {"metavar": metavar} if metavar else {"action": "store_true"}
        action = group.add_argument(*aliases, name, dest=name, default=argparse.SUPPRESS, help=about, **how)
        action.values = values

    def format_help(self) -> str:
        import shutil  # noqa: PLC0415 - brings compression, and the exporter itself prints no help

        self.formatter_class = partial(_Formatter, width=min(_WIDTH, shutil.get_terminal_size((_WIDTH, 0)).columns))
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        plainer = message.replace("expected one argument", "needs a value").replace("ignored explicit argument", "takes no value, but got")
        raise UsageError(plainer.removeprefix("argument "))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise _UnknownCommand(value, tuple(action.choices))


def parse(arguments: list[str]) -> Arguments:
    """Parse a command line, without the program's name. Raises `UsageError`."""
    parsers = _parsers()
    root = parsers[""]
    try:
        found, unknown = root.parse_known_args(arguments)
    except _UnknownCommand as error:
        before = arguments[: arguments.index(error.word)]
        if (flag := next((each for each in before if _is_unknown_flag(each, root)), None)) is None:
            raise
        raise _unknown(flag, root, parsers) from None
    given = vars(found)
    command, files = given.pop("command", ""), given.pop("files", [])
    if unknown or (unknown := [flag for flag in given if flag not in parsers[command].flags]):
        raise _unknown(unknown[0], parsers[command], parsers)
    return Arguments(command, given, files, lambda: parsers[command].format_help().rstrip())


def described() -> list[CommandHelp]:
    """Return what help says of each command, and first of the exporter itself, for man pages and completion."""
    of = _COMMANDS | {"": _Command("[COMMAND]", "Prometheus exporter for processes that live for milliseconds", _ABOUT, _EPILOG)}
    return [
        CommandHelp(name, of[name].argument, of[name].summary, of[name].about, of[name].epilog, each.shown)
        for name, each in _parsers().items()
    ]


def _parsers() -> dict[str, _Parser]:
    """Return the parser of each command. The first one, of no name, is for all of the command line."""
    summaries = "\n".join(f"  {f'{name} {each.argument}':<22}{each.summary}" for name, each in _COMMANDS.items())
    root = _Parser(prog=NAME, usage=f"{NAME} [COMMAND] [flags]", description=f"{_ABOUT}\n\ncommands:\n{summaries}", epilog=_EPILOG)
    parsers = {"": root}
    group = root.add_subparsers(prog=NAME, help=argparse.SUPPRESS, parser_class=_Parser)
    for name, each in _COMMANDS.items():
        usage = " ".join(word for word in (NAME, name, each.argument, "[flags]") if word)
        parsers[name] = group.add_parser(name, usage=usage, description=each.about, epilog=each.epilog)
        parsers[name].set_defaults(command=name)
    parsers["check-config"].add_argument("files", nargs="*", help=argparse.SUPPRESS)
    snoop_flags.add_to(parsers["snoop"])
    top_flags.add_to(parsers["top"])
    _add_doctor_flags(parsers["doctor"])
    for name, parser in parsers.items():
        _add_flags(parser, name)
    return parsers


def _add_doctor_flags(parser: _Parser) -> None:
    group = parser.add_argument_group("report")
    parser.add(group, "--json", "print one JSON object")
    parser.add(group, "--require", "fail unless the exporter would use this mode or a better one", metavar="MODE", values=tuple(Mode))


def _add_flags(parser: _Parser, command: str) -> None:
    """Add the flags that several commands have."""
    group = parser.add_argument_group("flags")
    parser.add(group, "--config.file", "configuration file (YAML)", metavar="FILE")
    for flag in flags.declared():
        is_of_server = flag.name.startswith("--web.")
        if not (is_of_server and command in {"snoop", "top"}):
            about = argparse.SUPPRESS if is_of_server and command == "doctor" else flag.help
            parser.add(group, flag.name, about, metavar=flag.metavar, values=flag.values)
    parser.add(group, "--fast-scan", f"the same as --mode={Mode.FAST_SCAN}")
    parser.add(group, "--version", "print the version")
    parser.add(group, "--help", "print this help", "-h")


def _is_unknown_flag(argument: str, parser: _Parser) -> bool:
    return argument.startswith("-") and argument.partition("=")[0] not in parser.flags


def _unknown(argument: str, parser: _Parser, parsers: dict[str, _Parser]) -> UsageError:
    if not argument.startswith("-"):
        return UsageError(f"unexpected argument {one_line(argument)}: see {parser.prog} --help")
    flag = argument.partition("=")[0]
    of = next((name for name, each in parsers.items() if flag in each.flags), None)
    if of is None:
        return UsageError(f"unknown flag {one_line(flag)}{suggestion(flag, parser.flags) or f': see {parser.prog} --help'}")
    hint = f"write it after {of}" if parser is parsers[""] else f"{parser.prog} has no such flag"
    return UsageError(f"{flag} is a flag of {parsers[of].prog}: {hint}")
