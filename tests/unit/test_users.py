"""Names of users by number."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from exporter.attribution import users
from exporter.attribution.users import Users


class _Clock:
    time = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def passwd(tmp_path: Path) -> Path:
    file = tmp_path / "passwd"
    file.write_bytes(b"root:x:0:0::/root:/bin/sh\nweb:x:33:33::/:/bin/sh\ntoor:x:0:0::/:/bin/sh\n")
    return file


def test_users_have_names(passwd: Path) -> None:
    """The first line of a number counts, as for other programs; what has no name is a number."""
    names = Users(str(passwd))
    assert [names.name(uid) for uid in (0, 33, 100000, 2**32 - 1, None)] == ["root", "web", "100000", "4294967295", "unknown"]


def test_a_small_file_takes_little_memory(passwd: Path) -> None:
    """It is read in the loop that counts, which must not end for want of a buffer that nobody fills."""
    names = Users(str(passwd))
    tracemalloc.start()
    try:
        assert names.name(33) == "web"
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_changed_file_is_read_again(passwd: Path) -> None:
    """Users are added while the exporter runs; the file is looked at once a second at most."""
    clock = _Clock()
    names = Users(str(passwd), clock)
    assert names.name(1000) == "1000"
    new = passwd.with_name("new")
    new.write_text("alice:x:1000:1000::/:/bin/sh\n")
    new.rename(passwd)
    assert names.name(1000) == "1000"
    clock.time = 1.5
    assert names.name(1000) == "alice"
    passwd.unlink()
    clock.time = 3
    assert names.name(1000) == "alice"


def test_a_bad_file_gives_numbers(tmp_path: Path) -> None:
    """Neither a missing file, nor a pipe that blocks, nor damaged lines may stop a drain."""
    assert Users(str(tmp_path / "none")).name(1) == "1"
    os.mkfifo(tmp_path / "pipe")
    assert Users(str(tmp_path / "pipe")).name(1) == "1"
    assert Users(str(tmp_path)).name(1) == "1"
    (tmp_path / "bad").write_bytes(
        b":x:1:\nfoo\nfoo:x\nfoo:x:-1:\n1234:x:2:\n" + b"9" * 99 + b":x:" + b"9" * 99 + b"\nx\x1b:x:3:3\n" + b"a" * 65 + b":x:4:4"
    )
    bad = Users(str(tmp_path / "bad"))
    assert [bad.name(uid) for uid in (1, 2, 3, 4)] == ["1", "2", "x\\x1b", "4"]


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with very many users must not fill the exporter's memory: the others are numbers."""
    monkeypatch.setattr(users, "_MAX_USERS", 10)
    file = tmp_path / "passwd"
    file.write_text("".join(f"u{uid}:x:{uid}:{uid}::/:/bin/sh\n" for uid in range(20)))
    names = Users(str(file))
    assert [names.name(uid) for uid in (9, 10)] == ["u9", "10"]
