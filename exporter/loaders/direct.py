"""The loader that uses the privileges of this process."""

from __future__ import annotations

import importlib
from typing import cast

from exporter.kernel.attached import Handover
from exporter.loaders.base import ModeLoader, Settings, log_line
from exporter.model import Mode, ModeUnavailable


class Direct:
    """A `Loader` in this process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def load(self, mode: Mode) -> Handover:
        return self._module(mode).load(self._settings, log_line)

    def probe(self, mode: Mode) -> None:
        if reason := self._module(mode).refusal(self._settings):
            raise ModeUnavailable(reason)

    def _module(self, mode: Mode) -> ModeLoader:
        """Return the module of a mode; imported at its first use, to save memory."""
        name = self._settings.modules.get(mode)
        if name is None:
            raise ModeUnavailable(f"{mode} has no loader")
        return cast(ModeLoader, importlib.import_module(name))
