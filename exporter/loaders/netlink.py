"""Opens the sockets of the mode `netlink`."""

from __future__ import annotations

from collections.abc import Callable

from exporter.kernel import netlink_sockets
from exporter.kernel.attached import Handover
from exporter.kernel.procfs import Procfs
from exporter.loaders.base import Settings


def load(settings: Settings, on_log: Callable[[str], None]) -> Handover:  # noqa: ARG001 - of every mode's loader
    """See `ModeLoader`."""
    return netlink_sockets.open_sockets(Procfs(settings.procfs)).to_handover()


def refusal(settings: Settings) -> str | None:
    """See `ModeLoader`."""
    return netlink_sockets.refusal(Procfs(settings.procfs))
