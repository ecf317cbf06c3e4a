"""Everything that takes privilege, behind one interface: done here by this very process; `broker` has another process do it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from exporter.kernel.attached import Handover
from exporter.kernel.procfs import Procfs
from exporter.model import Mode, ModeUnavailable, RuntimeScale

if TYPE_CHECKING:
    from exporter.kernel.netlink_sockets import Sockets

logger = logging.getLogger(__name__)


class Loader(Protocol):
    """Gives what a mode needs of the kernel. All raise `ModeUnavailable`, with a sentence for a person."""

    def programs(self, mode: Mode, *, quiet: bool) -> Handover:
        """Load and attach the BPF programs of an eBPF mode."""

    def sockets(self) -> Sockets:
        """Open those of netlink."""

    def look(self, mode: Mode) -> None:
        """Raise `ModeUnavailable` where one of them is sure to fail, as far as that can be told cheaply."""


class Direct:
    """With the privileges of this process."""

    def __init__(self, scale: RuntimeScale, procfs: str, interpreter: str | None) -> None:
        """`interpreter` is one that has bcc; None looks for it."""
        self._scale = scale
        self._procfs = Procfs(procfs)
        self._interpreter = interpreter

    def programs(self, mode: Mode, *, quiet: bool) -> Handover:
        if mode is Mode.EBPF_CORE:
            from exporter.loaders.core import load_core  # noqa: PLC0415 - what a mode imports costs memory

            return load_core(self._scale, log_line, quiet=quiet)
        if mode is not Mode.EBPF_BCC:
            raise ModeUnavailable(f"{mode} has no programs")
        from exporter.loaders.bcc import load_bcc  # noqa: PLC0415

        return load_bcc(self._scale, log_line, quiet=quiet, interpreter=self._interpreter, proc=self._procfs.root)

    def sockets(self) -> Sockets:
        from exporter.kernel.netlink_sockets import opened  # noqa: PLC0415

        return opened(self._procfs)

    def look(self, mode: Mode) -> None:
        if reason := self._refusal(mode):
            raise ModeUnavailable(reason)

    def _refusal(self, mode: Mode) -> str | None:
        from exporter.kernel import netlink_sockets  # noqa: PLC0415
        from exporter.loaders import bcc, core  # noqa: PLC0415

        if mode is Mode.NETLINK:
            return netlink_sockets.refusal(self._procfs)
        return core.refusal() if mode is Mode.EBPF_CORE else bcc.refusal(self._interpreter)


def log_line(line: str) -> None:
    """Log what a loader's child says; what it notes is for the operator."""
    note = line.removeprefix("note: ")
    logger.log(logging.DEBUG if note == line else logging.WARNING, "%s", note)
