"""The command line: it turns flags and file into a `Config` and hands that to the command."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from exporter.config import loading
from exporter.config.options import AUTO, Config
from exporter.config.problems import ConfigError, one_line, suggestion
from exporter.model import Mode
from exporter.process import version

if TYPE_CHECKING:
    from exporter.handlers.plan import Plan

OK, FAILED, BAD_USAGE = 0, 1, 2

_USAGE = """shortproc-exporter [flags]
       shortproc-exporter snoop [flags]
       shortproc-exporter doctor [flags]
       shortproc-exporter check-config [FILE] [flags]"""

_ABOUT = """Prometheus exporter for processes that live too briefly for top, ps and a 1 s scan of /proc to see:
how many there are, how long they live, how much CPU they burn, how they end, and how much of that it missed.

commands:
  (none)                run, and serve metrics until SIGTERM or SIGINT
  snoop                 print short processes as they end; its flags: shortproc-exporter snoop --help
  doctor                say of each mode whether it works here or why not, and which one auto would take
  check-config [FILE]   say whether a configuration file is good, and the web configuration file that it names"""

_EPILOG = """A flag beats the file. Each option of the file, its meaning and its default: config/exporter.yml.

examples:
  shortproc-exporter                                    metrics at http://localhost:10199/metrics
  shortproc-exporter --web.listen-address=127.0.0.1:9000
  shortproc-exporter --mode=ebpf_core --log.level=debug
  shortproc-exporter snoop --parent=make                what does make start?
  shortproc-exporter doctor                             why is a mode not used?
  shortproc-exporter check-config /etc/shortproc-exporter/exporter.yml

exit status: 0 fine, 1 it could not listen or print, 2 bad usage or configuration, or the mode asked for can't run here."""

_OPTIONS = {
    "--mode": "detection.mode",
    "--web.listen-address": "web.listen_address",
    "--web.telemetry-path": "web.telemetry_path",
    "--web.config.file": "web.config_file",
    "--path.procfs": "procfs",
    "--log.level": "log.level",
    "--log.format": "log.format",
}


class UsageError(Exception):
    """The command line can't be used. The message is one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def main(arguments: list[str]) -> int:
    """Run a command line and return its exit status."""
    try:
        parser = _parser(snoop="snoop" in arguments)
        args = parser.parse_intermixed_args(arguments)
        if args.help:
            return _say(parser.format_help().rstrip())
        if args.version:
            return _say(version.text())
        return _command(args)
    except UsageError as error:
        _complain(str(error))
    except ConfigError as error:
        for line in error.lines:
            _complain(line)
    return BAD_USAGE


def _parser(*, snoop: bool) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="shortproc-exporter",
        usage=_USAGE,
        description=_ABOUT,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    flags = parser.add_argument_group("flags")
    flags.add_argument("--config.file", metavar="FILE", help="configuration file (YAML)")
    flags.add_argument("--mode", metavar="MODE", help=f"how to see processes: {', '.join((AUTO, *Mode))} (default auto)")
    flags.add_argument("--no-ebpf", action="store_true", help="let auto begin at netlink")
    flags.add_argument("--fast-scan", action="store_true", help="the same as --mode=fast_scan")
    if not snoop:
        flags.add_argument("--web.listen-address", metavar="HOST:PORT", help="where to listen (default :10199, every address)")
        flags.add_argument("--web.telemetry-path", metavar="PATH", help="path of the metrics (default /metrics)")
        flags.add_argument("--web.config.file", metavar="FILE", help="TLS, users, headers and rate limit (YAML, as for other exporters)")
    flags.add_argument("--path.procfs", metavar="DIR", help="where proc is mounted (default /proc)")
    flags.add_argument("--log.level", metavar="LEVEL", help="debug, info, warn or error (default info)")
    flags.add_argument("--log.format", metavar="FORMAT", help="logfmt or json (default logfmt)")
    flags.add_argument("--version", action="store_true", help="print the version")
    flags.add_argument("-h", "--help", action="store_true", help="print this")
    if snoop:
        from exporter.snoop.flags import add_to  # noqa: PLC0415 - the exporter does without

        add_to(parser)
    return parser


def _command(args: argparse.Namespace) -> int:
    match args.words:
        case []:
            settings = _configuration(args)
            from exporter import app  # noqa: PLC0415 - check-config and --version do without

            return app.main(settings, lambda: _reread(args), _plan(args, settings))
        case ["doctor"]:
            settings = _configuration(args)
            from exporter import doctor  # noqa: PLC0415

            return _to_stdout(lambda: doctor.main(settings))
        case ["snoop"]:
            return _snoop(args)
        case ["check-config", *files] if len(files) <= 1:
            return _check_config(args, files)
        case ["doctor" | "snoop" | "check-config" as command, *_]:
            raise UsageError(f"too many words after {command}: {one_line(' '.join(args.words[1:]))}")
        case [word, *_]:
            hint = suggestion(word, ("snoop", "doctor", "check-config")) or " (there are snoop, doctor and check-config)"
            raise UsageError(f"unknown command {one_line(word)}{hint}")
    raise AssertionError


def _snoop(args: argparse.Namespace) -> int:
    from exporter.snoop import flags, run  # noqa: PLC0415

    wanted = flags.options(args)
    settings = _configuration(args)
    if vars(args)["log.level"] is None:  # its lines would stand between those of snoop
        settings = loading.override(settings, "log.level", "error", "--log.level")
    return _to_stdout(lambda: run.main(wanted, settings))


def _check_config(args: argparse.Namespace, files: list[str]) -> int:
    named = vars(args)["config.file"]
    if named is not None and files:
        raise UsageError("check-config takes one file, as an argument or by --config.file")
    path, web_path = files[0] if files else named, vars(args)["web.config.file"]
    if path is None and web_path is None:
        raise UsageError("check-config needs a file")
    vars(args)["config.file"] = path
    settings = _configuration(args)
    _plan(args, settings)
    if settings.web.config_file:
        from exporter.web.policy_file import PolicyFile  # noqa: PLC0415

        PolicyFile(settings.web.config_file)
    return _say(f"{one_line(path or web_path)}: ok")


def _configuration(args: argparse.Namespace) -> Config:
    """Everything from the file, and over it what the flags say."""
    given = {f"--{name.replace('_', '-')}": value for name, value in vars(args).items() if value not in (None, False)}
    path = given.get("--config.file")
    settings = loading.load(path) if path is not None else Config()
    for flag, key in _OPTIONS.items():
        if flag in given:
            settings = loading.override(settings, key, given[flag], flag)
    mode = settings.detection.mode
    if args.fast_scan:
        if "--mode" in given and mode != Mode.FAST_SCAN:
            raise UsageError(f"--fast-scan and --mode={mode} contradict each other")
        settings = loading.override(settings, "detection.mode", str(Mode.FAST_SCAN), "--fast-scan")
    elif args.no_ebpf and mode != AUTO and _loads_programs(Mode(mode)):
        wanted = f"--mode={mode}" if "--mode" in given else f"detection.mode: {mode} in {one_line(str(path))}"
        raise UsageError(f"--no-ebpf and {wanted} contradict each other")
    return loading.override(settings, "no_ebpf", args.no_ebpf, "--no-ebpf")


def _loads_programs(mode: Mode) -> bool:
    from exporter.supervision.modes import SPECS  # noqa: PLC0415 - check-config and --version do without

    return SPECS[mode].loads_programs


def _plan(args: argparse.Namespace, settings: Config) -> Plan | None:
    """What handlers and sinks need, checked as far as that can be without running anything."""
    if settings.handlers == Config().handlers and settings.sinks == Config().sinks:
        return None
    from exporter.handlers import plan  # noqa: PLC0415 - most run without

    path = vars(args)["config.file"]
    try:
        return plan.make(settings.handlers, settings.sinks, path)
    except ConfigError as error:
        raise ConfigError(*(f"{one_line(path)}: {each}" for each in error.problems)) from None


def _reread(args: argparse.Namespace) -> Config:
    try:
        return _configuration(args)
    except UsageError as error:  # a flag contradicts what the file says now
        raise ConfigError(str(error)) from error


def _say(text: str) -> int:
    def say() -> int:
        print(text)  # noqa: T201
        return OK

    return _to_stdout(say)


def _to_stdout(command: Callable[[], int]) -> int:
    """Run a command that prints, and end as other tools do where nobody reads (`... | head -1`) or nothing can be written."""
    try:
        status = command()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        return 128 + signal.SIGPIPE
    except OSError as error:
        _drop_stdout()
        _complain(f"cannot write to standard output: {error.strerror or error}")
        return FAILED
    return status


def _drop_stdout() -> None:
    """Let what is still buffered go nowhere: the interpreter would complain of it at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str) -> None:
    print(f"shortproc-exporter: error: {one_line(message)}", file=sys.stderr)  # noqa: T201
