"""What is generated stands between marks in a file; the rest is written by hand.

A mark is a line `<!-- generated: NAME -->`, and `<!-- /generated -->` ends what belongs there. In YAML it is `# generated: NAME`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_MARKED = re.compile(
    r"(?P<mark>^ *(?:<!--|#) generated: (?P<name>\w+)(?: -->)?\n).*?(?=^ *(?:<!--|#) /generated)", re.MULTILINE | re.DOTALL
)


def rendered(text: str, blocks: Mapping[str, str]) -> str:
    """Return the file's text with each block between its marks. Raises `ValueError` unless each has exactly one place."""
    places = [place["name"] for place in _MARKED.finditer(text)]
    if sorted(places) != sorted(blocks):
        raise ValueError(f"marks in the file: {sorted(places)}, blocks to be written: {sorted(blocks)}")
    return _MARKED.sub(lambda place: place["mark"] + blocks[place["name"]], text)


def code(text: str) -> str:
    """Return Markdown that shows `text` as it is."""
    return f"`{text}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = ["".join(f"| {cell} " if cell else "| " for cell in row) + "|\n" for row in (head, *rows)]
    return "".join((lines[0], "|---" * len(head), "|\n", *lines[1:]))


def measured_on(result: Mapping[str, Any], bench: str) -> str:
    """Return the sentence that says where a kept result of `bench` comes from."""
    machine = result["machine"]
    where = f"{machine['system']}, Linux {machine['kernel']}, {machine['architecture']}, {machine['cpus']} CPUs ({machine['processor']})"
    return f"One run of `python -m bench {bench}`, {machine['date']}: {where}."
