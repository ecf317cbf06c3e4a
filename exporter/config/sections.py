"""Sections of a configuration file: dataclasses whose fields are the keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, field, fields
from typing import Any

from exporter.config.checks import Check, Schema, list_of
from exporter.config.problems import MOST_REPORTED, InvalidValue, Problem, closest, gathering, shown

_WANTED = "a mapping of keys to values"


def option(default: Any, check: Check, about: str, *, flag: str = "", example: str = "") -> Any:
    """Declare a key of a section, and perhaps the flag that overrides it. `example` is a value, as YAML.

    `flag` is the flag's name and a word for its value, such as `--mode MODE`. Without that word the flag takes no value.
    """
    return field(default=default, metadata={"check": check, "about": about, "flag": flag, "example": example})


def flag_only(default: Any, check: Check, about: str, flag: str) -> Any:
    """Declare an option that only a flag can set."""
    return field(default=default, metadata={"check": check, "about": about, "flag": flag, "flag_only": True})


def required(check: Check, about: str, example: str) -> Any:
    """Declare a key that has no default; `example` is a value, as YAML."""
    return field(metadata={"check": check, "about": about, "example": example})


def group(of: type[Any], about: str, example: str = "") -> Any:
    """Declare a key that holds a section."""
    return field(default_factory=of, metadata={"check": section(of), "about": about, "section": of, "example": example})


def groups(of: type[Any], most: int, about: str) -> Any:
    """Declare a key that holds a list of sections."""
    return field(default=(), metadata={"check": list_of(section(of), most), "about": about, "items": of})


def section(of: type[Any]) -> Check:
    """Accept a mapping whose keys are the options that a dataclass declares. Those without a default are required."""
    options: dict[str, Check] = {each.name: each.metadata["check"] for each in keys_of(of)}
    must = [each.name for each in keys_of(of) if each.default is MISSING and each.default_factory is MISSING]

    def read(value: object) -> Any:
        if value is None:  # a section whose keys are all commented out
            value = {}
        if not isinstance(value, dict):
            raise InvalidValue(f"{shown(value)} is not {_WANTED}")
        kept = {}
        with gathering() as found:
            for key, item in value.items():
                with found.inside(key):
                    if key not in options:
                        raise InvalidValue(Problem("unknown key", known=tuple(options)))
                    kept[key] = options[key].read(item)
            found.problems += (Problem("missing; this key has no default", key) for key in must if key not in value)
        return of(**kept)

    schema = {"type": ["object", "null"], "additionalProperties": False, "properties": _properties(of)}
    return Check(read, schema | {"type": "object", "required": must} if must else schema, _WANTED)


def document(of: type[Any]) -> Check:
    """Accept a whole file: a section whose messages say where an unknown key belongs."""
    whole = section(of)

    def read(value: object) -> Any:
        try:
            return whole.read(value)
        except InvalidValue as invalid:
            reported, others = invalid.problems[:MOST_REPORTED], invalid.problems[MOST_REPORTED:]
            raise InvalidValue(*(_with_hint(each, of) for each in reported), *others) from None

    return Check(read, whole.schema, whole.wanted)


def keys_of(of: type[Any]) -> list[Field[Any]]:
    """Return the keys of a section, in the order of their declaration."""
    return [each for each in fields(of) if "check" in each.metadata and "flag_only" not in each.metadata]


def _with_hint(problem: Problem, root: type[Any]) -> Problem:
    """Add a hint to the problem of an unknown key: the key that is probably meant, or the section where it belongs."""
    if not problem.known:
        return problem
    key = problem.at.rpartition(".")[2]
    parents = [parent or "top level" for parent, name in _keys(root) if name == key]
    if parents:
        hint = f": it belongs {'at' if parents == ['top level'] else 'under'} {' or '.join(parents)}; check the indentation"
    elif guess := closest(key, problem.known):
        hint = f" (did you mean {guess}?)"
    else:
        hint = f" (known keys here: {', '.join(problem.known)})"
    return problem._replace(reason=f"{problem.reason}{hint}")


def _keys(of: type[Any], parent: str = "") -> Iterator[tuple[str, str]]:
    """Yield each key of a section and of its subsections, as the path of its section and its name."""
    for each in keys_of(of):
        yield parent, each.name
        if "section" in each.metadata:
            yield from _keys(each.metadata["section"], f"{parent}.{each.name}" if parent else each.name)


def _properties(of: type[Any]) -> dict[str, Schema]:
    properties = {}
    for each in keys_of(of):
        default = {} if each.default is MISSING else {"default": each.default}
        properties[each.name] = {"description": each.metadata["about"]} | each.metadata["check"].schema | default
    return properties
