"""The loader that uses the privileges of this process."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from exporter.kernel.attached import Handover
from exporter.loaders.base import ModeLoader, Settings, log_line
from exporter.model import Mode, ModeUnavailable
from exporter.model.owner import ContainerName

if TYPE_CHECKING:
    from exporter.loaders.container_state import ContainerState


class Direct:
    """A `Loader` in this process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._container_state: ContainerState | None = None

    def load(self, mode: Mode) -> Handover:
        return self._module(mode).load(self._settings, log_line)

    def probe(self, mode: Mode) -> None:
        if reason := self._module(mode).refusal(self._settings):
            raise ModeUnavailable(reason)

    def container_names(self, ids: Sequence[str]) -> dict[str, ContainerName]:
        """Return the names of containers that their runtimes keep, by id; of at most 32, and only those that are known."""
        if self._container_state is None:
            from exporter.loaders.container_state import ContainerState  # noqa: PLC0415 - most hosts have no containers

            self._container_state = ContainerState()
        return self._container_state.names(ids)

    def _module(self, mode: Mode) -> ModeLoader:
        """Return the module of a mode; imported at its first use, to save memory."""
        name = self._settings.modules.get(mode)
        if name is None:
            raise ModeUnavailable(f"{mode} has no loader")
        return cast(ModeLoader, importlib.import_module(name))
