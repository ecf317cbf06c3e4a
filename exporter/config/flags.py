"""Flags of the command line that set options, as `options` declares them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from exporter.config import loading
from exporter.config.options import Config
from exporter.config.problems import ConfigError


class Flag(NamedTuple):
    name: str
    key: str
    """Key of the option, such as `log.level`."""
    metavar: str
    """Empty for a flag without a value."""
    help: str
    values: tuple[str, ...]
    """Those that there are, if they can be listed."""


def declared(of: type[Any] = Config, prefix: str = "") -> Iterator[Flag]:
    """Yield the flags of a section's options, in the order of their declaration."""
    for each in fields(of):
        if "section" in each.metadata:
            yield from declared(each.metadata["section"], f"{prefix}{each.name}.")
        elif each.metadata.get("flag"):
            choices = each.metadata["check"].schema.get("enum")
            first = each.metadata["about"].partition(". ")[0].removesuffix(".")
            about = first[0].lower() + first[1:]
            values = f": {', '.join(choices)}" if choices else ""
            default = f" (default {each.default})" if each.default else ""
            name, _, metavar = each.metadata["flag"].partition(" ")
            yield Flag(name, f"{prefix}{each.name}", metavar, f"{about}{values}{default}", tuple(choices or ()))


def override(config: Config, given: Mapping[str, Any]) -> Config:
    """Return `config` with the options that the given flags (by name) set. Raises `ConfigError` with the problems of all flags."""
    problems: list[str] = []
    for flag in declared():
        if flag.name in given:
            try:
                config = loading.override(config, flag.key, given[flag.name], flag.name)
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return config
