"""Prometheus exporter for processes that live too briefly for top, ps and a /proc scan to see.

It is also a library: `exporter.watch`, `exporter.follow` and `exporter.history` (docs/library.md).
"""

from __future__ import annotations

TYPE_CHECKING = False
"""True for type checkers. `typing` has it too, but would be too large for the broker."""
if TYPE_CHECKING:
    from exporter.library.api import (
        Ended,
        Event,
        EventKind,
        Events,
        Filter,
        History,
        Mode,
        ModeUnavailable,
        Outcome,
        Processes,
        Record,
        Totals,
        Unreadable,
        as_json,
        comm_text,
        follow,
        history,
        watch,
    )

__version__ = "0.1.0"
__all__ = [
    "Ended",
    "Event",
    "EventKind",
    "Events",
    "Filter",
    "History",
    "Mode",
    "ModeUnavailable",
    "Outcome",
    "Processes",
    "Record",
    "Totals",
    "Unreadable",
    "as_json",
    "comm_text",
    "follow",
    "history",
    "watch",
]


if not TYPE_CHECKING:  # a type checker knows the names above, and no others

    def __getattr__(name: str) -> object:
        """Import the library at its first use: the exporter itself does without."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module  # noqa: PLC0415

        return getattr(import_module("exporter.library.api"), name)
