"""The types that declare the fields of a record, and the functions made from these declarations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from exporter.model.facts import Fact
from exporter.records.kinds import Form, JsonForm, Kind

Json = dict[str, Any]


class Key(NamedTuple):
    """A key of the JSON object."""

    name: str
    form: JsonForm
    of: tuple[str, ...] = ()
    """The fields that the form takes; by default the field that declares the key."""
    about: str = ""
    """By default that of the field."""
    attribute: str = ""
    """Its name in OpenTelemetry, if the semantic conventions have one; by default `shortproc.NAME`."""


class Narrow(NamedTuple):
    """How a column of snoop adapts to a terminal that is too narrow for all of them."""

    rank: int
    """The columns with the lowest ranks stay, and are the first to get more than `least`."""
    least: int
    """Fewest cells of the terminal."""
    keep: Literal["begin", "end", "head"] = "begin"
    """What a text that is too wide keeps. `head` is its beginning without a mark that it was cut."""


class Column(NamedTuple):
    """A column of snoop or of the page."""

    place: int
    """Position among the columns."""
    title: str
    """On the page, its first letter may be the column's kind; see `web.parts.Table`."""
    width: str = ""
    """In snoop: alignment and minimum width, such as `>7`; empty for the last column."""
    form: Form | None = None
    """By default that of the field's kind."""
    of: tuple[str, ...] = ()
    """The fields that the form takes; by default the field that declares the column."""
    about: str = ""
    """By default that of the field."""
    flag: str = ""
    """The flag of snoop that shows it; always shown without one."""
    narrow: Narrow = Narrow(0, 0)
    """In snoop."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record."""

    about: str
    kind: Kind
    fact: Fact
    """The fact that a mode has to know to fill it."""
    keys: tuple[Key, ...] = ()
    """By default one key, with the field's name."""
    attribute: str = ""
    """Of that default key, as `Key.attribute`."""
    read: Callable[[Json], Any] | None = None
    """Reads the value back from the JSON object; by default the kind reads the first key."""
    snoop: Column | None = None
    page: Column | None = None
    name: str = ""
    type: str = ""
    optional: bool = False
    """Whether it may be None. `fields_of` takes this, the type and the name from the declaration."""


def fields_of(record: type) -> tuple[Field, ...]:
    """Return the fields that a `NamedTuple` declares as `Annotated[type, Field(...)]`."""
    declared = ((name, *get_args(hint)) for name, hint in get_type_hints(record, include_extras=True).items())
    return tuple(_named(field, name, get_args(of) if get_origin(of) is UnionType else (of,)) for name, of, field in declared)


def _named(field: Field, name: str, types: tuple[type, ...]) -> Field:
    names = ("None" if each is NoneType else str(each) if get_args(each) else each.__name__ for each in types)
    return replace(field, name=name, type=" or ".join(names), optional=NoneType in types)


def keys_of(field: Field) -> list[Key]:
    """Return the keys of a field with their defaults filled in."""
    keys = field.keys or (Key(field.name, field.kind.json, attribute=field.attribute),)
    return [
        key._replace(of=key.of or (field.name,), about=key.about or field.about, attribute=key.attribute or f"shortproc.{key.name}")
        for key in keys
    ]


class Shown(NamedTuple):
    """A `Column` with its defaults filled in."""

    title: str
    width: str
    form: Form
    of: tuple[str, ...]
    about: str
    flag: str
    narrow: Narrow
    fact: Fact
    """The fact that a mode has to know to fill it."""


def snoop_columns(fields: Sequence[Field]) -> list[Shown]:
    return _shown((field.snoop, field.kind.snoop, field) for field in fields)


def page_columns(fields: Sequence[Field]) -> list[Shown]:
    return _shown((field.page, field.kind.page, field) for field in fields)


def _shown(columns: Iterable[tuple[Column | None, Form, Field]]) -> list[Shown]:
    there = sorted(((column, form, field) for column, form, field in columns if column is not None), key=lambda each: each[0].place)
    return [
        Shown(
            column.title,
            column.width,
            column.form or form,
            column.of or (field.name,),
            _about(column, field),
            column.flag,
            column.narrow,
            field.fact,
        )
        for column, form, field in there
    ]


def _about(column: Column, field: Field) -> str:
    return f"{f'with `{column.flag}`: ' if column.flag else ''}{column.about or field.about}"


def compiled(fields: Sequence[Field], forms: Iterable[tuple[Form | None, tuple[str, ...]]], shape: Callable[[list[str]], str]) -> Form:
    """Return a function of a record's values, `function(*record)`. It calls each form with its fields; for None it uses the field itself.

    `shape` joins the source of these calls to one expression, which is compiled once. It contains only names from our own code. A loop over
    the forms would take half as long again for each record.
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
    """Return the source of a tuple, as a `shape` for `compiled`."""
    return f"({', '.join(calls)},)"
