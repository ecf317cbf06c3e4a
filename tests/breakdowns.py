"""Short ways to say what a test expects of a breakdown."""

from __future__ import annotations

from exporter.model.counts import Breakdown, Key


def short_exits(breakdown: Breakdown[Key]) -> dict[Key, int]:
    """The short exits of each key."""
    return {key: row.short_exits for key, row in breakdown.rows.items()}
