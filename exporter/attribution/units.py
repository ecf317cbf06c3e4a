r"""Names of units and machines as labels: harmless text, and folded where they have no end.

A backslash is kept as it is, unlike in a comm: systemd writes `\x2d` in names, and node_exporter's label `name` has it, too.
"""

from __future__ import annotations

import re

from exporter.model import comm_text

_MAX_NAME = 255
"""NAME_MAX (limits.h); a path that was forged may have longer ones."""
_DASH = rb"(?:-|_|\\x2d)"
_INSTANCE = re.compile(rb"([^@]*@).*(\.[a-z]+)", re.DOTALL)
_TRANSIENT = re.compile(rb"run-(?:r[0-9a-f]{32}|u\d+|p\d+-i\d+|\d+)(\.(?:service|scope))")  # systemd-run(1)
_SESSION = re.compile(rb"session-[^/]+\.scope")
_IDS = re.compile(
    rb"[0-9a-f]{64}|[0-9a-f]{8}(?:" + _DASH + rb"[0-9a-f]{4}){3}" + _DASH + rb"[0-9a-f]{12}|(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])|\d{6,}"
)
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_STARTED = re.compile(rb"(?:qemu|lxc)-\d+-")
"""libvirt's prefix, with a number that rises at each start."""
_EPHEMERAL = re.compile(rb"-[0-9a-f]{16}$")
"""The end that `systemd-nspawn --ephemeral` adds."""


def folded(unit: bytes) -> str:
    """Return the name of a unit. Instances lose their name; ids and numbers of six digits or more become `*`."""
    unit = unit[:_MAX_NAME]
    if match := _INSTANCE.fullmatch(unit):
        return _text(match[1] + match[2])
    if match := _TRANSIENT.fullmatch(unit):
        return _text(b"run-*" + match[1])
    if _SESSION.fullmatch(unit):
        return "session-*.scope"
    return _text(_IDS.sub(b"*", unit))


def machine_name(name: bytes) -> str:
    """Return the name of a machine, without systemd's escapes and without the parts that are new at each start."""
    name = _ESCAPE.sub(_unescaped, name[:_MAX_NAME])
    if match := _STARTED.match(name):
        name = name[match.end() :]
    return _text(_IDS.sub(b"*", _EPHEMERAL.sub(b"", name)))


def _unescaped(match: re.Match[bytes]) -> bytes:
    return bytes.fromhex(match[1].decode())


def _text(name: bytes) -> str:
    return comm_text(name).replace("\\\\", "\\")
