"""The kept inputs of each target: `corpus/TARGET.hex`, one in a line. The first ones were recorded or written by hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_FOLDER = Path(__file__).parent / "corpus"
_MOST_BYTES = 16 * 1024


def kept(target: str) -> list[bytes]:
    """Return the kept inputs of a target."""
    return [bytes.fromhex(each) for each in (_FOLDER / f"{target}.hex").read_text().splitlines()]


def keep(target: str, found: Iterable[bytes]) -> int:
    """Keep further inputs, the shortest ones, until all kept ones have 16 KiB. Returns the number of kept ones."""
    chosen = kept(target)
    left = _MOST_BYTES - sum(map(len, chosen))
    for each in sorted(set(found) - set(chosen), key=lambda data: (len(data), data)):
        left -= len(each)
        if left < 0:
            break
        chosen.append(each)
    (_FOLDER / f"{target}.hex").write_text("".join(f"{each.hex()}\n" for each in chosen))
    return len(chosen)
