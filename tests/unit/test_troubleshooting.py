"""The messages that docs/troubleshooting.md explains are those that the exporter prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
# Literals that stand one after the other are one message; what is put into a message at run time is a gap.
SOURCE = re.sub(r'"\s*\n?\s*f?"', "", "".join(path.read_text() for path in sorted((ROOT / "exporter").rglob("*.py"))))
MESSAGES = [code for row in re.findall(r"^\| (.*?) \|", PAGE, re.MULTILINE) for code in re.findall("`([^`]+)`", row) if " " in code]


@pytest.mark.parametrize("message", [message for message in MESSAGES if not message.startswith(("FILE: ", "MODE "))])
def test_each_message_is_one_of_the_exporter(message: str) -> None:
    """A reader searches for the words that are on the screen."""
    parts = [part.strip(" ():") for part in message.split("...")]
    assert all(part in SOURCE or part.lower() in ("address already in use", "permission denied") for part in parts), message


def test_there_are_messages() -> None:
    """Or the test above would test nothing."""
    assert len(MESSAGES) > 25
