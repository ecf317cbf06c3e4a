"""The tables of docs/top.md, from the declarations in exporter/top/."""

from __future__ import annotations

from docs.marks import code, table
from exporter.top.state import KEYS


def blocks() -> dict[str, str]:
    """Return the blocks of docs/top.md."""
    return {"keys": table(("key", "effect"), ((code(each.key) if each.key != " " else "space", each.about) for each in KEYS))}
