"""Which capability is kept, and for whom root gives itself up."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from exporter.kernel.capabilities import CAP_BPF, CAP_SYS_ADMIN
from exporter.process import privileges
from exporter.process.privileges import NOBODY, NoSuchUser, reload_warning, target_user, user_of
from tests.folders import public


@pytest.mark.parametrize(
    ("release", "kept"),
    [
        ("6.18.44", set()),
        ("5.19.0-rc1", set()),
        ("5.18.7-generic", {CAP_BPF}),
        ("5.8.0", {CAP_BPF}),
        ("5.4.0-150-generic", {CAP_SYS_ADMIN}),
        ("4.18.0-553.el8_10.x86_64", {CAP_SYS_ADMIN}),
    ],
)
def test_older_kernels_let_only_the_privileged_read_maps(monkeypatch: pytest.MonkeyPatch, release: str, kept: set[int]) -> None:
    """Exactly one stays there, since without it every scrape would fail; and none where none is needed."""
    real = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((real.sysname, real.nodename, release, real.version, real.machine)))
    assert privileges.needed_capabilities() == kept


def test_who_it_becomes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own user where there is one, nobody where not; who is configured, by name or number; never root."""
    known = {"shortproc-exporter": 77, "daemon": 1, "root": 0, "toor": 0}

    def find(name: str) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", known[name], known[name] + 100, "", "/", "/bin/false"))

    def find_number(number: int) -> pwd.struct_passwd:
        return find({uid: name for name, uid in known.items()}[number])

    monkeypatch.setattr(pwd, "getpwnam", find)
    monkeypatch.setattr(pwd, "getpwuid", find_number)
    assert user_of("") == (77, 177)
    assert user_of("daemon") == user_of("1") == (1, 101)
    assert user_of("4242") == (4242, 4242)
    for name in ("root", "0", "toor", "nobody-knows"):
        with pytest.raises(NoSuchUser):
            user_of(name)
    del known["shortproc-exporter"]
    assert user_of("") == (NOBODY, NOBODY)


def test_what_it_could_not_read_again_is_told(tmp_path: Path) -> None:
    """A reload would fail, perhaps months later: by mode, by a directory above, and only where there is such a file."""
    if os.geteuid() != 0:
        pytest.skip("only root can ask what another user may do")
    file = tmp_path / "exporter.yml"
    assert reload_warning(str(file), NOBODY, NOBODY) is None
    file.write_text("")
    public(tmp_path)
    assert reload_warning(str(file), NOBODY, NOBODY) is None
    file.chmod(0o640)
    assert f"chgrp {NOBODY} {file} && chmod 640 {file}" in str(reload_warning(str(file), NOBODY, NOBODY))
    os.chown(file, 0, NOBODY)
    assert reload_warning(str(file), NOBODY, NOBODY) is None
    tmp_path.chmod(0o700)
    assert "a reload will fail" in str(reload_warning(str(file), NOBODY, NOBODY))
    assert reload_warning(str(file), 0, 0) is None


def test_who_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is switched to where nothing is to be dropped; sinks are written by their directory's owner alone."""
    monkeypatch.setattr(privileges, "has_any", lambda: True)
    assert target_user("", drop=False, writer=None) is None
    assert target_user("4242", drop=True, writer=None) == (4242, 4242)
    assert target_user("", drop=True, writer=(7, 8)) == target_user("7", drop=True, writer=(7, 8)) == (7, 8)
    with pytest.raises(NoSuchUser, match="belongs to user 7"):
        target_user("4242", drop=True, writer=(7, 8))
    monkeypatch.setattr(privileges, "has_any", lambda: False)
    assert target_user("4242", drop=True, writer=None) is None
