"""The documents that come with the exporter: what the page links to."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = "/docs/"
_PACKAGED = Path(__file__).parents[1] / "_docs"
_CHECKOUT = Path(__file__).parents[2] / "docs"
_PATH = re.compile(r"/docs/([a-z]+(?:-[a-z]+)*\.md)")


def read(path: str) -> bytes | None:
    """Return the document at a path of the server, plain Markdown; None if there is none."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    for folder in (_PACKAGED, _CHECKOUT):
        try:
            return (folder / match[1]).read_bytes()
        except OSError:
            continue
    return None
