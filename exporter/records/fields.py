"""What the declaration of a record says of each of its fields, and how functions are made from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any, NamedTuple, get_args, get_type_hints

from exporter.model.facts import Fact
from exporter.records.kinds import Form, JsonForm, Kind

Json = dict[str, Any]


class Key(NamedTuple):
    """A key of the JSON object."""

    name: str
    form: JsonForm
    of: tuple[str, ...] = ()
    """The fields that the form takes; by default the one where this is declared."""
    about: str = ""
    """By default as the field."""


class Column(NamedTuple):
    """A column of snoop or of the page."""

    place: int
    """Columns stand in this order."""
    title: str
    """On the page its first letter may tell its kind, see `web.parts.Table`."""
    width: str = ""
    """In snoop: alignment and least width, such as `>7`; none for the last column."""
    form: Form | None = None
    """By default that of the field's kind."""
    of: tuple[str, ...] = ()
    """The fields that the form takes; by default the one where this is declared."""
    about: str = ""
    """By default as the field."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record."""

    about: str
    kind: Kind
    fact: Fact
    """What a mode must be able to tell to fill it."""
    keys: tuple[Key, ...] = ()
    """By default one, with the field's name."""
    read: Callable[[Json], Any] | None = None
    """How the value is read back from the JSON object; by default the kind reads the first key."""
    snoop: Column | None = None
    page: Column | None = None
    name: str = ""
    type: str = ""
    optional: bool = False
    """Whether it may be None. This, the type and the name are those of the declaration."""


def fields_of(record: type) -> tuple[Field, ...]:
    """Return the fields that a `NamedTuple` declares as `Annotated[type, Field(...)]`."""
    declared = ((name, *get_args(hint)) for name, hint in get_type_hints(record, include_extras=True).items())
    return tuple(_named(field, name, get_args(of) or (of,)) for name, of, field in declared)


def _named(field: Field, name: str, types: tuple[type, ...]) -> Field:
    names = ("None" if each is NoneType else each.__name__ for each in types)
    return replace(field, name=name, type=" or ".join(names), optional=NoneType in types)


def keys_of(field: Field) -> list[Key]:
    """Return its keys with all that they left out."""
    keys = field.keys or (Key(field.name, field.kind.json),)
    return [key._replace(of=key.of or (field.name,), about=key.about or field.about) for key in keys]


class Shown(NamedTuple):
    """A `Column` with all that it left out."""

    title: str
    width: str
    form: Form
    of: tuple[str, ...]
    about: str


def snoop_columns(fields: Sequence[Field]) -> list[Shown]:
    return _shown((field.snoop, field.kind.snoop, field) for field in fields)


def page_columns(fields: Sequence[Field]) -> list[Shown]:
    return _shown((field.page, field.kind.page, field) for field in fields)


def _shown(columns: Iterable[tuple[Column | None, Form, Field]]) -> list[Shown]:
    there = sorted(((column, form, field) for column, form, field in columns if column is not None), key=lambda each: each[0].place)
    return [
        Shown(column.title, column.width, column.form or form, column.of or (field.name,), column.about or field.about)
        for column, form, field in there
    ]


def compiled(fields: Sequence[Field], forms: Iterable[tuple[Form | None, tuple[str, ...]]], shape: Callable[[list[str]], str]) -> Form:
    """Make a function of a record's values, `function(*record)`. Each form is called with the fields that it takes; None is a field itself.

    `shape` joins these calls, as source, to one expression. It is compiled once, and of nothing but names in our own code: a loop over the
    forms would take half as long again for each record.
    """
    functions: dict[str, Form] = {}
    calls = []
    for form, of in forms:
        call = ", ".join(of)
        if form is not None:
            name = f"form{len(functions)}"
            functions[name], call = form, f"{name}({call})"
        calls.append(call)
    function: Form = eval(f"lambda {', '.join(field.name for field in fields)}: {shape(calls)}", functions)  # noqa: S307
    return function


def as_tuple(calls: list[str]) -> str:
    """The shape of a tuple."""
    return f"({', '.join(calls)},)"
