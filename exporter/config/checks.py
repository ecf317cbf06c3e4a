"""Checks of values. Each has the same rule as code, as text for messages and as JSON schema."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

from exporter.config import durations
from exporter.config.problems import InvalidValue, gathering, shown, suggestion
from exporter.model import NS

Schema = dict[str, Any]
_OFF = "off"


@dataclass(frozen=True, slots=True)
class Check:
    read: Callable[[object], Any]
    """Returns the value to keep, or raises `InvalidValue`."""
    schema: Schema
    wanted: str
    """The allowed values, as the end of a sentence."""


def one_of(*choices: str) -> Check:
    wanted = f"one of {', '.join(choices)}"
    with_off: list[str | bool] = [False] if _OFF in choices else []  # YAML 1.1 reads a plain `off` as false

    def read(value: object) -> str:
        if value is False and with_off:
            return _OFF
        if isinstance(value, str) and value in choices:
            return value
        raise InvalidValue(f"{shown(value)} is not {wanted}{suggestion(value, choices)}")

    return Check(read, {"enum": [*choices, *with_off]}, wanted)


def boolean() -> Check:
    def read(value: object) -> bool:
        if isinstance(value, bool):
            return value
        raise InvalidValue(f"{shown(value)} is not true or false")

    return Check(read, {"type": "boolean"}, "true or false")


def integer(least: int, most: int) -> Check:
    wanted = f"an integer from {least} to {most}"

    def read(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        hint = _hint(value, lambda meant: least <= meant <= most and meant == int(meant))
        raise InvalidValue(f"{shown(value)} is not {wanted}{hint}")

    return Check(read, {"type": "integer", "minimum": least, "maximum": most}, wanted)


def size(least: int, most: int) -> Check:
    """Accept a number of bytes."""
    check = integer(least, most)
    return Check(check.read, check.schema, f"a number of bytes from {least} ({in_bytes(least)}) to {most} ({in_bytes(most)})")


def in_bytes(number: int) -> str:
    """Write a size with the largest unit that needs no fraction."""
    power = next(power for power in (4, 3, 2, 1, 0) if number % (1 << 10 * power) == 0)
    return f"{number >> 10 * power} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def number(least: float, most: float) -> Check:
    wanted = f"a number from {least:g} to {most:g}"

    def read(value: object) -> float:
        if _is_number(value) and least <= value <= most:
            return float(value)
        raise InvalidValue(f"{shown(value)} is not {wanted}{_hint(value, lambda meant: least <= meant <= most)}")

    return Check(read, {"type": "number", "minimum": least, "maximum": most}, wanted)


def duration(least: float, most: float, *, above: bool = False) -> Check:
    """Accept seconds, or text as `durations` reads it; keep seconds. With `above`, `least` itself is not allowed."""
    start = f"above {least:g}, up to" if above else f"from {durations.written(least)} to"
    wanted = f"a duration {start} {durations.written(most)}"
    example = min(max(0.5, least), most)
    hint = f": write for example {example:g} or {durations.written(example)}"

    def read(value: object) -> float:
        seconds: object = value
        if isinstance(value, str):
            ns = durations.parse(value)
            seconds = None if ns is None else ns / NS
        if not _is_number(seconds):
            meant = _hint(value, lambda meant: least <= meant <= most)
            raise InvalidValue(f"{shown(value)} is not {wanted}{meant or hint}")
        if least <= seconds <= most and not (above and seconds == least):
            return float(seconds)
        raise InvalidValue(f"{shown(value)} is not {wanted}")

    numbers = {"type": "number", "exclusiveMinimum" if above else "minimum": least, "maximum": most}
    return Check(read, {"anyOf": [numbers, {"type": "string", "pattern": f"^({durations.PATTERN})$"}]}, wanted)


def rising(each: Check, most: int, parts_of_one: int) -> Check:
    """Accept a list of numbers, each greater than the one before, also when rounded to multiples of 1 / `parts_of_one`."""
    wanted = f"a list of 1 to {most} rising values"

    def read(value: object) -> tuple[float, ...]:
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            what = f"a list of {len(value)}" if isinstance(value, list) else shown(value)
            raise InvalidValue(f"{what} is not {wanted}")
        kept: list[float] = []
        with gathering() as found:
            for index, item in enumerate(value):
                with found.inside(f"[{index}]"):
                    bound = each.read(item)
                    if kept and round(bound * parts_of_one) <= round(kept[-1] * parts_of_one):
                        raise InvalidValue(f"{shown(item)} is not greater than the one before it ({kept[-1]:g})")
                    kept.append(bound)
        return tuple(kept)

    schema = {"type": "array", "items": each.schema, "minItems": 1, "maxItems": most, "uniqueItems": True}
    return Check(read, schema, f"{wanted}; each is {each.wanted}")


def text(wanted: str, pattern: str, refusal: Callable[[str], str | None] = lambda _: None) -> Check:
    """Accept text that matches `pattern`, for which `refusal` returns no reason. JSON schema can only check the pattern."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise InvalidValue(f"{shown(value)} is not {wanted}")
        if reason := refusal(value):
            raise InvalidValue(f"{shown(value)} {reason}")
        return value

    return Check(read, {"type": "string", "pattern": f"^{pattern}$"}, wanted)


def list_of(each: Check, most: int) -> Check:
    """Accept a list of at most `most` values."""

    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            hint = f": write [{json.dumps(value)}]" if isinstance(value, str | int) and len(str(value)) < 40 else ""
            raise InvalidValue(f"{shown(value)} is not a list{hint}")
        if len(value) > most:
            raise InvalidValue(f"a list of {len(value)} is longer than {most}")
        kept = []
        with gathering() as found:
            for index, item in enumerate(value):
                with found.inside(f"[{index}]"):
                    kept.append(each.read(item))
        return tuple(kept)

    return Check(read, {"type": "array", "items": each.schema, "maxItems": most}, f"a list of at most {most}; each is {each.wanted}")


def keywords() -> Check:
    """Accept a mapping from names to values that JSON can represent."""
    wanted = "a mapping of keys to values"

    def read(value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise InvalidValue(f"{shown(value)} is not {wanted}")
        with gathering() as found:
            for key, item in value.items():
                with found.inside(key):
                    if not key.isidentifier():
                        raise InvalidValue("not a valid name of a Python argument: use letters, digits and _")
                    try:
                        json.dumps(item, allow_nan=False)
                    except (TypeError, ValueError):  # a date, infinity
                        raise InvalidValue(f"{shown(item)} is neither text, number, boolean, list nor mapping") from None
        return value

    return Check(read, {"type": "object", "propertyNames": {"pattern": "^[^0-9\\W]\\w*$"}}, wanted)


def procfs() -> Check:
    """Accept a directory that contains `stat` or `self`. Every procfs has one of them (with `subset=pid`, only `self`)."""
    wanted = "a directory where procfs is mounted"

    def read(value: object) -> str:
        try:
            if isinstance(value, str) and any(os.path.lexists(f"{value}/{name}") for name in ("stat", "self")):
                return value
        except ValueError:  # a null character
            pass
        raise InvalidValue(f"{shown(value)} is not {wanted}: it has neither stat nor self")

    return Check(read, {"type": "string"}, wanted)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _hint(value: object, fits: Callable[[float], bool]) -> str:
    """Return how to write the number that a text seems to mean: 5e-4 (text in YAML 1.1), "0.5", 0,5 or 50%."""
    if not isinstance(value, str) or len(value) > 40:
        return ""
    try:
        meant = float(value.removesuffix("%").replace(",", ".")) / (100 if value.endswith("%") else 1)
    except ValueError:
        return ""
    if not math.isfinite(meant) or not fits(meant):
        return ""
    return f": write {meant:.9f}".rstrip("0").rstrip(".")
