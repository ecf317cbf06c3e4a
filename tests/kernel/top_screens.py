"""`python -m tests.kernel.top_screens` writes the screens in docs/top.md: of `top` on a terminal, while scripts start processes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from exporter.top.view import HEAD
from tests.terminal import CHECKOUT, Terminal

_DOCUMENT = CHECKOUT / "docs/top.md"
_SCRIPTS = {
    "backup.sh": "while :; do stat / ; ls / ; gzip -c /etc/passwd ; sleep 0.07; done",
    "healthcheck": "while :; do grep -q ready /dev/null ; sleep 0.04; done",
    "build": "while :; do sh -c 'true; cat /etc/hostname; true' ; python3 -S -c pass ; done",
}
"""Each starts processes until it is killed."""
_SCREENS: dict[str, tuple[int, int, str]] = {"80x24": (80, 24, ""), "160x50": (160, 50, ""), "tree": (80, 24, "t")}
"""Of each: columns, lines and the keys that are pressed."""
_SECONDS = 12
_NAMES_BEGIN = 55
"""The cell of a tree's first name at 80 columns."""


def main() -> None:
    """Write the screens."""
    text = _DOCUMENT.read_text()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for name, script in _SCRIPTS.items():
            path = Path(folder) / name
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
            child = subprocess.Popen([path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(child.wait)
            stack.callback(child.kill)
        for name, (columns, lines, keys) in _SCREENS.items():
            text = _placed(text, name, _taken(columns, lines, keys))
    _DOCUMENT.write_text(text)


def _without_own_ancestors(screen: Sequence[str]) -> list[str]:
    """Return a tree without the rows of what started this command, which say nothing about `top`."""
    begin = next(at for at, line in enumerate(screen) if line.endswith(tuple(f"-{name}" for name in _SCRIPTS)))
    margin = screen[begin].index("|-")
    rows = [line[:_NAMES_BEGIN] + line[margin:] if len(line) > margin else line for line in screen[begin:-1]]
    return [*screen[:HEAD], *rows, *[""] * (begin - HEAD), screen[-1]]


def _placed(text: str, name: str, screen: Sequence[str]) -> str:
    """Return a document with a screen between the marks that name it."""
    before, mark, rest = text.partition(f"<!-- screen: {name} -->\n")
    _, end, after = rest.partition("<!-- /screen -->")
    return "".join((before, mark, *(f"    {line}".rstrip() + "\n" for line in screen), end, after))


def _taken(columns: int, lines: int, keys: str) -> Sequence[str]:
    parents = (f"--parent={name}" for name in (*_SCRIPTS, "sh"))
    command = [sys.executable, "-m", "exporter", "top", *parents]
    with Terminal(command, columns, lines) as terminal:
        end = time.monotonic() + _SECONDS
        terminal.wait_for(lambda _: time.monotonic() > end)
        terminal.type(f"{keys}r")
        end = time.monotonic() + 1
        shown = terminal.wait_for(lambda _: time.monotonic() > end)
        terminal.type("q")
        terminal.ended()
        return _without_own_ancestors(shown) if keys == "t" else list(shown)


if __name__ == "__main__":
    main()
