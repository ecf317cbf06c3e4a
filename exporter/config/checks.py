"""What an option may hold: each check says it once, as code with a message for a person and as JSON schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

Schema = dict[str, Any]

_MOST_SHOWN = 60


class InvalidValue(Exception):
    """A value is not allowed. `at` is where in the checked value, such as `scan.interval_seconds` or `[3]`."""

    def __init__(self, reason: str, at: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = at

    def inside(self, name: str) -> InvalidValue:
        """Make the same complaint as seen from what holds `name`."""
        dot = "." if self.at and not self.at.startswith("[") else ""
        return InvalidValue(self.reason, f"{short(name)}{dot}{self.at}")


@dataclass(frozen=True, slots=True)
class Check:
    read: Callable[[object], Any]
    """Returns the value to keep, or raises `InvalidValue`."""
    schema: Schema


def one_of(*choices: str) -> Check:
    def read(value: object) -> str:
        if isinstance(value, str) and value in choices:
            return value
        raise InvalidValue(f"{shown(value)} is not one of {', '.join(choices)}{suggestion(value, choices)}")

    return Check(read, {"enum": list(choices)})


def boolean() -> Check:
    def read(value: object) -> bool:
        if isinstance(value, bool):
            return value
        raise InvalidValue(f"{shown(value)} is not true or false")

    return Check(read, {"type": "boolean"})


def integer(least: int, most: int) -> Check:
    def read(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise InvalidValue(f"{shown(value)} is not an integer from {least} to {most}")

    return Check(read, {"type": "integer", "minimum": least, "maximum": most})


def number(least: float, most: float, *, above: bool = False) -> Check:
    """Accept a number in a range; with `above`, the least one is itself not allowed."""

    def read(value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most and not (above and value == least):
            return float(value)
        raise InvalidValue(f"{shown(value)} is not a number {f'above {least:g}, up' if above else f'from {least:g}'} to {most:g}")

    return Check(read, {"type": "number", "exclusiveMinimum" if above else "minimum": least, "maximum": most})


def rising(each: Check, most: int, parts_of_one: int) -> Check:
    """Accept a list of numbers, each greater than the one before it, also where both are rounded to whole parts of one."""

    def read(value: object) -> tuple[float, ...]:
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            what = f"a list of {len(value)}" if isinstance(value, list) else shown(value)
            raise InvalidValue(f"{what} is not a list of 1 to {most} rising numbers")
        kept: list[float] = []
        for index, item in enumerate(value):
            try:
                bound = each.read(item)
            except InvalidValue as wrong:
                raise wrong.inside(f"[{index}]") from None
            if kept and round(bound * parts_of_one) <= round(kept[-1] * parts_of_one):
                raise InvalidValue(f"{shown(item)} is not greater than the bound before it ({kept[-1]:g})", f"[{index}]")
            kept.append(bound)
        return tuple(kept)

    return Check(read, {"type": "array", "items": each.schema, "minItems": 1, "maxItems": most, "uniqueItems": True})


def text(wanted: str, pattern: str, refusal: Callable[[str], str | None] = lambda _: None) -> Check:
    """Accept text of one form: `pattern` is what JSON schema can say of it, `refusal` (a reason, or nothing) the rest."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise InvalidValue(f"{shown(value)} is not {wanted}")
        if reason := refusal(value):
            raise InvalidValue(f"{shown(value)} {reason}")
        return value

    return Check(read, {"type": "string", "pattern": f"^{pattern}$"})


def list_of(each: Check, most: int) -> Check:
    """Accept a list of at most so many values."""

    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > most:
            what = f"a list of {len(value)}" if isinstance(value, list) else shown(value)
            raise InvalidValue(f"{what} is not a list of at most {most}")
        kept = []
        for index, item in enumerate(value):
            try:
                kept.append(each.read(item))
            except InvalidValue as wrong:
                raise wrong.inside(f"[{index}]") from None
        return tuple(kept)

    return Check(read, {"type": "array", "items": each.schema, "maxItems": most})


def keywords() -> Check:
    """Accept a mapping from names to what JSON can hold."""

    def read(value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise InvalidValue(f"{shown(value)} is not a mapping of keys to values")
        for key, item in value.items():
            if not key.isidentifier():
                raise InvalidValue("is not a name that Python can take as a keyword").inside(key)
            try:
                json.dumps(item, allow_nan=False)
            except (TypeError, ValueError):  # a date, infinity
                raise InvalidValue(f"{shown(item)} is neither text, number, boolean, list nor mapping").inside(key) from None
        return value

    return Check(read, {"type": "object", "propertyNames": {"pattern": "^[^0-9\\W]\\w*$"}})


def directory() -> Check:
    def read(value: object) -> str:
        if isinstance(value, str) and "\0" not in value and Path(value).is_dir():
            return value
        raise InvalidValue(f"{shown(value)} is not a directory")

    return Check(read, {"type": "string"})


def section(of: type[Any]) -> Check:
    """Accept a mapping whose keys are the options that a dataclass declares. Those without a default have to be there."""
    options = options_of(of)
    required = [each.name for each in fields(of) if each.name in options and each.default is MISSING and each.default_factory is MISSING]

    def read(value: object) -> Any:
        if value is None:  # a section whose keys are all commented out
            value = {}
        if not isinstance(value, dict):
            raise InvalidValue(f"{shown(value)} is not a mapping of keys to values")
        kept = {}
        for key, item in value.items():
            if key not in options:
                raise InvalidValue(f"unknown key{suggestion(key, options) or ' (known here: ' + ', '.join(options) + ')'}").inside(str(key))
            try:
                kept[key] = options[key].read(item)
            except InvalidValue as wrong:
                raise wrong.inside(key) from None
        for key in required:
            if key not in kept:
                raise InvalidValue("is missing").inside(key)
        return of(**kept)

    schema = {"type": ["object", "null"], "additionalProperties": False, "properties": _properties(of)}
    return Check(read, schema | {"type": "object", "required": required} if required else schema)


def options_of(of: type[Any]) -> dict[str, Check]:
    """Give the check of each key, in the order of the declaration."""
    return {field.name: field.metadata["check"] for field in fields(of) if "check" in field.metadata}


def _properties(of: type[Any]) -> dict[str, Schema]:
    properties = {}
    for field in fields(of):
        if "check" in field.metadata:
            default = {} if field.default is MISSING else {"default": field.default}
            properties[field.name] = {"description": field.metadata["about"]} | field.metadata["check"].schema | default
    return properties


def shown(value: object) -> str:
    """Put a value from a file on one short line, much as YAML writes it."""
    match value:
        case None | bool():
            return json.dumps(value)
        case dict() | list():
            return f"a {'mapping' if isinstance(value, dict) else 'list'}"
        case int() if abs(value) >= 10**_MOST_SHOWN:
            return "an integer of very many digits"
        case int() | float():
            return str(value)
    return f"'{short(str(value))}'"


def short(words: str) -> str:
    """Put what may be any text on one line that no terminal takes for a command, and cut it."""
    return one_line(words if len(words) <= _MOST_SHOWN else f"{words[:_MOST_SHOWN]}...")


def one_line(words: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in words)


def suggestion(word: object, known: Iterable[str]) -> str:
    """Suggest a known word, where one is near."""
    import difflib  # noqa: PLC0415 - only a mistake needs it

    found = difflib.get_close_matches(word[:_MOST_SHOWN], known, n=1) if isinstance(word, str) else []
    return f" (did you mean {found[0]}?)" if found else ""
