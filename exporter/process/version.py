"""The version and revision of the exporter."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from exporter import __version__

_PACKAGE = Path(__file__).resolve().parents[1]
_SHORT = 7


def text() -> str:
    """Return the output of `--version`."""
    return f"shortproc-exporter, version {__version__} (revision: {revision()})\n  python version: {platform.python_version()}"


def revision(package: Path = _PACKAGE) -> str:
    """Return the git revision of the package, else of the checkout that contains it, else `unknown`."""
    return _first_line(package / "_revision") or _checked_out(package.parent / ".git") or "unknown"


def _checked_out(git: Path) -> str:
    linked = _first_line(git)  # in a worktree, `.git` is a file with the path of the directory
    if linked.startswith("gitdir: "):
        git = git.parent / linked.removeprefix("gitdir: ")
    head = _first_line(git / "HEAD")
    if head.startswith("ref: "):
        ref = head.removeprefix("ref: ")
        common = git / (_first_line(git / "commondir") or ".")
        head = _first_line(common / ref) or _packed(common / "packed-refs", ref)
    return head[:_SHORT] if re.fullmatch(r"[0-9a-f]{40,64}", head) else ""


def _packed(path: Path, ref: str) -> str:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return next((line.split()[0] for line in file if line.rstrip("\n").endswith(f" {ref}")), "")
    except OSError:
        return ""


def _first_line(path: Path) -> str:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return file.readline(4096).strip()
    except OSError:
        return ""
