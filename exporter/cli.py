"""Runs the commands of the command line. Returns their exit status."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from exporter.arguments import NAME, Arguments, Given, UsageError, parse
from exporter.config import flags, loading
from exporter.config.checks import one_of
from exporter.config.options import AUTO, Config, Security
from exporter.config.problems import ConfigError, InvalidValue, one_line
from exporter.model import Mode
from exporter.model.arguments import Wanted
from exporter.process import privileges, shortage, version
from exporter.snoop import flags as snoop_flags
from exporter.top import flags as top_flags

if TYPE_CHECKING:
    from exporter.handlers.plan import Plan

logger = logging.getLogger(__name__)

OK, FAILED, BAD_USAGE = 0, 1, 2


def main(arguments: list[str]) -> int:
    """Run a command line and return its exit status."""
    try:
        return _run(parse(arguments))
    except UsageError as error:
        _complain(str(error))
    except ConfigError as error:
        for line in error.lines:
            _complain(line)
    except (OSError, RuntimeError, MemoryError) as error:
        if (advice := shortage.advice(error)) is None:
            raise
        logger.debug("a shortage ended the exporter", exc_info=True)
        _complain(advice)
        return FAILED
    return BAD_USAGE


def _run(arguments: Arguments) -> int:
    command, given, files, help_text = arguments
    if "--help" in given:
        return _say(help_text())
    if "--version" in given:
        return _say(version.text())
    if command == "check-config":
        return _check_config(given, files)
    return {"snoop": _snoop, "top": _top, "doctor": _doctor}.get(command, _serve)(given)


def _serve(given: Given) -> int:
    settings = _configuration(given)
    from exporter import app  # noqa: PLC0415 - not needed by check-config and --version

    return app.main(settings, lambda: _configuration(given), _plan(given, settings), given.get("--config.file"))


def _doctor(given: Given) -> int:
    try:
        required = Mode(one_of(*Mode).read(given["--require"])) if "--require" in given else None
    except InvalidValue as invalid:
        raise UsageError("; ".join(f"--require: {each.reason}" for each in invalid.problems)) from None
    settings = _configuration(given)
    _plan(given, settings)  # refuses what the exporter would not start with
    from exporter import doctor  # noqa: PLC0415

    return _to_stdout(lambda: doctor.main(settings, as_json="--json" in given, required=required))


def _snoop(given: Given) -> int:
    from exporter.snoop import run  # noqa: PLC0415 - not needed by the exporter

    wanted = snoop_flags.options(given)
    settings = _quiet(given)
    if wanted.args and not settings.records.tell_arguments:
        settings = loading.override(settings, "records.arguments", Wanted.FULL, snoop_flags.ARGS)
    return _to_stdout(lambda: run.main(wanted, settings))


def _top(given: Given) -> int:
    from exporter.top import run  # noqa: PLC0415 - not needed by the exporter

    wanted = top_flags.options(given)
    settings = _quiet(given)
    return _to_stdout(lambda: run.main(wanted, settings))


def _quiet(given: Given) -> Config:
    """Return the configuration; without `--log.level`, only errors are logged: log lines would be mixed with the output."""
    settings = _configuration(given)
    return settings if "--log.level" in given else loading.override(settings, "log.level", "error", "--log.level")


def _check_config(given: Given, files: list[str]) -> int:
    names = [*files, *([given["--config.file"]] if "--config.file" in given else [])]
    if len(names) > 1:
        raise UsageError("check-config takes one file, as an argument or with --config.file")
    if not names and "--web.config.file" not in given:
        raise UsageError(f"check-config needs a file: {NAME} check-config FILE")
    if names:
        given = {**given, "--config.file": names[0]}
    settings = _configuration(given)
    web_file, plan, problems = settings.web.config_file, None, list[str]()
    try:
        plan = _plan(given, settings)
    except ConfigError as error:
        problems += error.problems
    if web_file:
        from exporter.web.policy_file import PolicyFile  # noqa: PLC0415

        try:
            PolicyFile(web_file)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)
    _warn_of_files([*names, *([web_file] if web_file else [])], settings.security, plan)
    return _say(f"{one_line(names[0] if names else given['--web.config.file'])}: ok")


def _warn_of_files(paths: list[str], security: Security, plan: Plan | None) -> None:
    """Warn of files that the exporter, started as this user, cannot reload after it has dropped its privileges."""
    try:
        writer = None if plan is None else plan.writer
        become = privileges.target_user(security.user, drop=security.drop_privileges, writer=writer)
    except privileges.NoSuchUser as error:  # perhaps the file is for another host
        return _warn(f"security.user: {error}")
    for path in paths:
        if become is not None and (warning := privileges.reload_warning(path, *become)):
            _warn(warning)
    return None


def _configuration(given: Given) -> Config:
    """Read the configuration file, and override it by the flags. Raises `ConfigError`."""
    path = given.get("--config.file")
    settings = flags.override(loading.load(path) if path is not None else Config(), given)
    if settings.web.public_records and settings.records.tell_arguments:
        where = f"{one_line(str(path))}: records.arguments"
        raise ConfigError(f"{where}: every client would see them, because web.public_records is true; set one of the two to its default")
    mode = settings.detection.mode
    if "--fast-scan" in given:
        if "--mode" in given and mode != Mode.FAST_SCAN:
            raise ConfigError(f"set either --fast-scan or --mode={mode}, not both")
        return loading.override(settings, "detection.mode", str(Mode.FAST_SCAN), "--fast-scan")
    if settings.no_ebpf and mode != AUTO and _loads_programs(Mode(mode)):
        wanted = f"--mode={mode}" if "--mode" in given else f"detection.mode: {mode} in {one_line(str(path))}"
        raise ConfigError(f"set either --no-ebpf or {wanted}, not both")
    return settings


def _loads_programs(mode: Mode) -> bool:
    from exporter.supervision.modes import SPECS  # noqa: PLC0415 - not needed by check-config and --version

    return SPECS[mode].loads_programs


def _plan(given: Given, settings: Config) -> Plan | None:
    """Return the plan of handlers and sinks, or None if there are none. Runs none of their code. Raises `ConfigError`."""
    if settings.handlers == Config().handlers and settings.sinks == Config().sinks:
        return None
    from exporter.handlers import plan  # noqa: PLC0415 - most run without

    path = given["--config.file"]
    try:
        return plan.make(settings.handlers, settings.sinks, path)
    except ConfigError as error:
        raise ConfigError(*(f"{one_line(path)}: {each}" for each in error.problems)) from None


def _say(text: str) -> int:
    def say() -> int:
        print(text)  # noqa: T201
        return OK

    return _to_stdout(say)


def _to_stdout(command: Callable[[], int]) -> int:
    """Run a command that prints. Returns the usual exit status if the reader has gone (`... | head -1`) or the output cannot be written."""
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
    """Discard buffered output, which the interpreter would fail to write at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _warn(message: str) -> None:
    print(f"{NAME}: warning: {one_line(message)}", file=sys.stderr)  # noqa: T201


def _complain(message: str) -> None:
    print(f"{NAME}: error: {one_line(message)}", file=sys.stderr)  # noqa: T201
