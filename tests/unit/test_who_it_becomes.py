"""Which capability is kept, and for whom root gives itself up."""

from __future__ import annotations

import os
import pwd

import pytest

from exporter.kernel.capabilities import CAP_BPF, CAP_SYS_ADMIN
from exporter.process import privileges
from exporter.process.privileges import NOBODY, NoSuchUser, user_of


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
    assert privileges.needed() == kept


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
