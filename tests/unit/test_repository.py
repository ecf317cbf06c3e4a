"""What a contributor relies on: the checks before a commit, pinned linters, licences, make targets, and decisions with date and status."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
DECISIONS = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
TARGETS = set(re.findall(r"^([a-z-]+):.* ## ", MAKEFILE, re.MULTILINE))


def recipe(target: str) -> str:
    """The commands of a target."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert found is not None
    return found[1]


def test_what_lint_checks_is_checked_before_a_commit() -> None:
    """Else a commit passes that `make lint` rejects."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    before_a_commit = {tool for each in hooks for tool in re.findall(r"\.venv/bin/(\S+(?: format)?)", each["entry"])}
    assert set(re.findall(r"@\$\(BIN\)/(\S+(?: format)?)", recipe("lint"))) == before_a_commit
    assert [each["entry"] for each in hooks if each["entry"].startswith("make")] == ["make current"]


def test_linters_are_pinned() -> None:
    """A new release of one must not reject what nobody changed."""
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["lint"]
    assert [each for each in requirements if not re.fullmatch(r"[\w-]+==[\w.]+", each)] == []


def test_licences() -> None:
    """Each that a file names is there in full, and what hosting services show is the text of the first."""
    texts = {path.stem for path in (ROOT / "LICENSES").iterdir()}
    sources = [path for pattern in ("*.h", "*.c", "*.toml") for path in (*ROOT.glob(pattern), *(ROOT / "bpf").rglob(pattern))]
    named = {
        name for path in sources for line in re.findall(r"License-Identifier\W+(.+?)[\")]", path.read_text()) for name in line.split(" OR ")
    }
    assert named == texts
    assert (ROOT / "LICENSE").read_text() == (ROOT / "LICENSES/Apache-2.0.txt").read_text()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_make_target_is_there(path: Path) -> None:
    """A newcomer types what a document says."""
    typed = re.findall(r"(?:^ {4}|`)(?:sudo )?make ([a-z][a-z-]*)", path.read_text(), re.MULTILINE)
    assert set(typed) <= TARGETS


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_each_decision_has_date_and_status(path: Path) -> None:
    """What was superseded must not be taken for what is."""
    number = int(path.name[:4])
    head = r"# (\d+)\. .+\n\nDate: 20\d\d-\d\d-\d\d\n\nStatus: (?:proposed|accepted|superseded)\b.*\n\n"
    found = re.match(head, path.read_text())
    assert found is not None
    assert int(found[1]) == number
