"""Writes the man pages: shortproc-exporter(1) from the help of the commands, shortproc-exporter(5) from the declarations of the options."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import Field
from typing import Any

from docs.config_files import allowed, intro, purpose
from exporter import __version__
from exporter.arguments import NAME, CommandHelp, FlagHelp, described
from exporter.config.options import Config
from exporter.config.sections import keys_of

FILES = {
    f"/etc/{NAME}/exporter.yml": f"configuration of the service; see {NAME}(5)",
    f"/etc/default/{NAME}": "flags of the service",
    f"/var/lib/{NAME}": "where sinks of the service may write",
    f"/usr/share/doc/{NAME}": "documents, Prometheus rules and Grafana dashboards",
}
SIGNALS = {"SIGTERM, SIGINT": "stop", "SIGHUP": "reload the configuration, and try better modes again"}
_ABOUT = "Prometheus exporter for processes that live for milliseconds"


def commands() -> str:
    """Return shortproc-exporter(1), in the language of man(7)."""
    exporter, *others = described()
    lines = [*_head(1, "User Commands", _ABOUT), ".SH SYNOPSIS"]
    for number, each in enumerate((exporter, *others)):
        command = _text(f"{NAME} {each.name}".rstrip())
        lines += [".br"] * (number > 0) + [rf"\fB{command}\fR {_text(f'{each.argument} [flags]'.strip())}"]
    lines += [".SH DESCRIPTION", *_paragraphs(exporter.about), ".SH COMMANDS"]
    lines += [line for each in others for line in _entry(f"{each.name} {each.argument}".strip(), f"{each.summary}.")]
    lines += [".SH OPTIONS", *_flags(exporter.flags)]
    for each in others:
        own = tuple(flag for flag in each.flags if flag not in exporter.flags)
        lines += [f".SH {NAME} {each.name}".upper(), *_paragraphs(each.about), *_flags(own)]
        lines += ["Other flags are as above.", *_epilog(each)] if own else _epilog(each)
    lines += [".SH CONFIGURATION", *_epilog(exporter, ".SH"), ".SH SIGNALS", *_entries(SIGNALS), ".SH FILES", *_entries(FILES)]
    return _ended(lines, f"{NAME}(5), prometheus(1), bpf(2), proc(5)")


def configuration() -> str:
    """Return shortproc-exporter(5)."""
    lines = [*_head(5, "File Formats", f"configuration of {NAME}"), ".SH SYNOPSIS", _text(f"/etc/{NAME}/exporter.yml"), ".SH DESCRIPTION"]
    lines += ["A file in YAML. All options may be left out.", *_paragraphs(intro())]
    for each in keys_of(Config):
        lines += [f'.SH "{each.name.upper()}"', *_paragraphs(purpose(each))]
        lines += [line for key, option in _options(each, "") for line in _option(key, option)]
    example = (".EX", "detection:", "  short_threshold_seconds: 500ms", "metrics:", "  max_comms: 100", ".EE")
    check = (".PP", rf"\fB{_text(NAME)} check\-config\fR \fIFILE\fR checks a file.")
    return _ended([*lines, ".SH EXAMPLES", *example, *check], f"{NAME}(1)")


def _options(key: Field[Any], prefix: str) -> Iterator[tuple[str, Field[Any]]]:
    """Each option below a key with its whole name, such as `sinks.otlp.url`; items of lists as `handlers[].module`."""
    items = key.metadata.get("items")
    section = key.metadata.get("section", items)
    if section is None:
        yield prefix + key.name, key
        return
    for each in keys_of(section):
        yield from _options(each, f"{prefix}{key.name}{'[]' if items else ''}.")


def _option(name: str, key: Field[Any]) -> Iterator[str]:
    yield from (".TP", rf"\fB{_text(name)}\fR", *_paragraphs(purpose(key)), ".br", _line(_text(allowed(key))))


def _head(section: int, title: str, about: str) -> list[str]:
    upper = _text(NAME.upper())
    comment = r".\" Written by `make docs`"
    return [comment, f'.TH "{upper}" "{section}" "" "{NAME} {__version__}" "{title}"', ".SH NAME", rf"{_text(NAME)} \- {_text(about)}"]


def _flags(flags: tuple[FlagHelp, ...]) -> Iterator[str]:
    for flag in flags:
        value = f"[={flag.metavar}]" if flag.is_optional else f"={flag.metavar}" if flag.metavar else ""
        yield from _entry(", ".join(flag.names) + value, f"{flag.about[0].upper()}{flag.about[1:]}.")


def _epilog(command: CommandHelp, macro: str = ".SS") -> Iterator[str]:
    """Examples and the exit status get a heading; other paragraphs stand as they are."""
    for paragraph in command.epilog.split("\n\n"):
        if paragraph.startswith("examples:\n"):
            yield from (
                f"{macro} EXAMPLES",
                ".EX",
                *map(_line, map(_text, textwrap.dedent(paragraph.partition("\n")[2]).splitlines())),
                ".EE",
            )
        elif paragraph.startswith("exit status: "):
            yield from (f"{macro} EXIT STATUS", *_paragraphs(f"{paragraph.removeprefix('exit status: ')}."))
        else:
            yield from [".PP"] * (macro == ".SS")  # else it follows a heading
            yield from _paragraphs(paragraph)


def _entries(of: dict[str, str]) -> Iterator[str]:
    for term, about in of.items():
        yield from _entry(term, f"{about[0].upper()}{about[1:]}.")


def _entry(term: str, about: str) -> Iterator[str]:
    yield from (".TP", rf"\fB{_text(term)}\fR", *_paragraphs(about))


def _paragraphs(text: str) -> Iterator[str]:
    """Text as it is wrapped already; lines that are indented stay lines of their own."""
    is_example = False
    for line in text.strip().splitlines():
        if line.startswith("  ") != is_example:
            is_example = not is_example
            yield ".EX" if is_example else ".EE"
        yield _line(_text(line)) if line else ".PP"
    if is_example:
        yield ".EE"


def _text(text: str) -> str:
    """Escape what has a meaning, and make a hyphen the character that a shell knows."""
    return text.replace("\\", r"\e").replace("-", r"\-")


def _line(text: str) -> str:
    """A line that is no request, though it begins like one."""
    return re.sub(r"^(?=[.'])", r"\\&", text)


def _ended(lines: list[str], others: str) -> str:
    return "\n".join([*lines, ".SH SEE ALSO", _text(others)]) + "\n"
