"""Writes config/exporter.yml and config/schema.json from the declarations of the options."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field
from typing import Any

from exporter.config import checks, durations
from exporter.config.options import Config
from exporter.config.sections import document, keys_of

_WIDTH = 120
_INTRO = """\
A duration is a number of seconds (0.0005; YAML reads 5e-4 as text), or has a unit: 500us, 20ms, 1.5s, 5m, 1h, 7d.
Repeated parts can be written once: `filter: &builds {comm: [make]}`, then `filter: *builds`, or `{<<: *builds, uid: [0]}`.
Changes of detection (but its threshold) and of log need SIGHUP, all others a restart. Flags override this file."""
_HEAD = """\
Configuration of shortproc-exporter: every option, at its default. All of them may be left out.
Check a changed file with:  shortproc-exporter check-config FILE

{}
Written by `make docs`, from exporter/config/options.py."""


def example() -> str:
    """Return a file with every option, its meaning and its default."""
    lines = [f"# {line}".rstrip() for line in _HEAD.format(_INTRO).splitlines()]
    for each in keys_of(Config):
        lines += ["", *_key(each, "", set())]
    return "\n".join(lines) + "\n"


def intro() -> str:
    """Return what holds for all options."""
    return _INTRO


def schema() -> str:
    """Return the JSON schema of such a file."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "shortproc-exporter"}
    return json.dumps(head | document(Config).schema, indent=2) + "\n"


def _key(key: Field[Any], indent: str, explained: set[type[Any]]) -> Iterator[str]:
    """A key with what is in it; sections that were explained before are given without comments."""
    section = key.metadata.get("section")
    yield from _comment(purpose(key), indent)
    if section is None:
        yield from _comment(allowed(key), indent)
        if "items" in key.metadata:
            yield from _item(key.metadata["items"])
        yield from _value(key, indent)
        return
    yield f"{indent}{key.name}:"
    within = indent + "  "
    if section in explained:
        for each in keys_of(section):
            yield from _value(each, within)
        return
    explained.add(section)
    for number, each in enumerate(keys_of(section)):
        yield from [""] * (number > 0)
        yield from _key(each, within, explained)


def _item(section: type[Any]) -> Iterator[str]:
    """One item of a list of sections, as a comment."""
    for number, each in enumerate(keys_of(section)):
        about = purpose(each) if "section" in each.metadata else f"{purpose(each)} {allowed(each)}"
        yield from _comment(about, "", prefix="#     # ")
        value = each.metadata.get("example") or _written(each.default)
        yield f"#   {'-' if number == 0 else ' '} {each.name}: {value}"


def purpose(key: Field[Any]) -> str:
    """Return what an option does."""
    text: str = key.metadata["about"]
    return text


def allowed(key: Field[Any]) -> str:
    """Return what the value may be, the flag and the default."""
    wanted = key.metadata["check"].wanted
    flag = f" Flag: {key.metadata['flag'].partition(' ')[0]}." if key.metadata.get("flag") else ""
    default = "" if key.default is MISSING else f" Default: {_spelled(key)}."
    return f"{wanted[0].upper()}{wanted[1:]}.{flag}{default}"


def _spelled(key: Field[Any]) -> str:
    default: Any = key.default
    if isinstance(default, tuple):
        return "as below" if default else "none"
    if isinstance(default, str):
        return default or "empty"
    if key.name.endswith("_seconds"):
        return durations.written(default)
    return checks.in_bytes(default) if key.name.endswith("_bytes") else _written(default)


def _value(key: Field[Any], indent: str) -> Iterator[str]:
    value = _written(key.default)
    if len(indent) + len(key.name) + len(value) + 2 <= _WIDTH:
        yield f"{indent}{key.name}: {value}"
    else:
        yield f"{indent}{key.name}:"
        yield f"{indent}  {value}"


def _written(value: Any) -> str:
    """As YAML."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, float):
        return f"{value:.9f}".rstrip("0").rstrip(".")
    return value if isinstance(value, str) and re.fullmatch(r"[/A-Za-z][\w/.-]*", value) else json.dumps(value)


def _comment(text: str, indent: str, prefix: str = "# ") -> Iterator[str]:
    """Wrapped, but for lines that are indented."""
    for paragraph in text.split("\n"):
        for line in (
            [paragraph] if paragraph.startswith(" ") else textwrap.wrap(paragraph, _WIDTH - len(indent + prefix), break_on_hyphens=False)
        ):
            yield f"{indent}{prefix}{line}"
