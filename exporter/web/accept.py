"""What a client accepts: the headers Accept and Accept-Encoding, by RFC 9110."""

from __future__ import annotations

import re
from itertools import islice
from typing import NamedTuple

from exporter.metrics.formats import FORMATS, TEXT, Format

_MOST = 64
"""Elements of a header that are read; Prometheus sends five."""
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
_PART = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*"?)+')
_QUOTED_PAIR = re.compile(r"\\(.)")
_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
_ESCAPINGS = ("underscores", "allow-utf-8", "dots", "values")
"""Our names contain letters, digits and underscores only: they need no escaping, and are the same in each of these schemes."""


class _Choice(NamedTuple):
    """What a client accepts, and how gladly."""

    value: str
    """In lower case."""
    parameters: dict[str, str]
    """By name in lower case, without the weight."""
    weight: float
    """From 0 (not accepted) to 1; 0 where it is malformed."""


_NOTHING = _Choice("", {}, 0.0)


def negotiate(accept: str) -> tuple[Format, str]:
    """Return the format of `/metrics` and its Content-Type: what the client wants most, and text 0.0.4 if it wants nothing that there is.

    Of equal weights, the first in the header wins, as in client_golang.
    """
    choices = _choices(accept)
    wishes = [(choice, form) for form in FORMATS if (choice := _most_specific(choices, form)).weight]
    choice, form = max(wishes, key=lambda wish: (wish[0].weight, -choices.index(wish[0])), default=(_NOTHING, TEXT))
    asked = choice.parameters.get("escaping")
    escaping = f"; escaping={asked if asked in _ESCAPINGS else _ESCAPINGS[0]}" if form.names_escaping else ""
    return form, f"{form.media_type}; {form.parameters}{escaping}"


def accepts_gzip(accept_encoding: str) -> bool:
    """Return whether the client accepts gzip, and does not prefer no encoding."""
    weights = {choice.value: choice.weight for choice in _choices(accept_encoding)}
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def _most_specific(choices: list[_Choice], form: Format) -> _Choice:
    """Return the media range that says how much the client wants this format."""
    found = max(choices, key=lambda choice: _specificity(choice, form), default=_NOTHING)
    return found if _specificity(found, form) else _NOTHING


def _specificity(choice: _Choice, form: Format) -> int:
    """Return how exactly a media range describes a format; 0 if it does not include it."""
    if choice.value == "*/*":
        return 1
    main, _, sub = choice.value.partition("/")
    if sub == "*" and form.media_type.startswith(f"{main}/"):
        return 2
    if choice.value != form.media_type:
        return 0
    if any(choice.parameters.get(name, "") not in values for name, values in form.wanted.items()):
        return 0
    return 3 + sum(name in choice.parameters for name in form.wanted)


def _choices(header: str) -> list[_Choice]:
    return [_choice(element[0]) for element in islice(_ELEMENT.finditer(header), _MOST)]


def _choice(element: str) -> _Choice:
    value, _, rest = element.partition(";")
    parts = (part[0].partition("=") for part in _PART.finditer(rest))
    parameters = {name.strip().lower(): _unquoted(text.strip()) for name, _, text in parts}
    weight = parameters.pop("q", "1")
    return _Choice(value.strip().lower(), parameters, float(weight) if _WEIGHT.fullmatch(weight) else 0.0)


def _unquoted(text: str) -> str:
    return _QUOTED_PAIR.sub(r"\1", text[1:-1]) if len(text) > 1 and text[0] == text[-1] == '"' else text
