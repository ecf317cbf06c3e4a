"""What a source says about parents and other origins of processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from exporter.model.origins import Origin, Origins
from exporter.sources.base import Source
from exporter.sources.ebpf.source import EbpfSource


def origins_of(source: Source) -> Origins:
    """All since the last time. Nothing may happen meanwhile: the maps that are in use are read too."""
    if isinstance(source, EbpfSource) and not source._stopped:
        for half in "ab":
            source._origins.read(half)
    return source.origins()


def short_by(origins: Origins, key: Callable[[Origin], bytes]) -> Counter[bytes]:
    """Short processes by some part of their origin."""
    counts: Counter[bytes] = Counter()
    for origin, row in origins.rows.items():
        if row.short_exits:
            counts[key(origin)] += row.short_exits
    return counts


def short_children(source: Source) -> Counter[bytes]:
    """Short processes by the comm of their parent."""
    return short_by(origins_of(source), lambda origin: origin.parent)
