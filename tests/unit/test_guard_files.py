"""A web configuration file that can't be read, or is none."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from exporter.config.problems import ConfigError
from exporter.web.policy_file import PolicyFile


def test_one_that_can_not_even_be_looked_at() -> None:
    """As below a folder that is not ours: one line, and no traceback."""
    with pytest.raises(ConfigError, match="too long"):
        PolicyFile("a" * 5000)


def test_a_pipe_that_takes_its_place(tmp_path: Path) -> None:
    """Opening it would take for ever, and with it the place of a client."""
    path = tmp_path / "web.yml"
    path.write_text("{}")
    guard = PolicyFile(str(path))
    path.unlink()
    os.mkfifo(path)
    looking = threading.Thread(target=guard.policy, daemon=True)
    looking.start()
    looking.join(2)
    assert not looking.is_alive()
