"""Finds, checks and imports the modules of handlers. Never imports from the working directory."""

from __future__ import annotations

import importlib
import os
import site
import sys
from collections.abc import Collection, Sequence
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from exporter.handlers.trust import refusal

BUILT_IN = "exporter.handlers."
"""Prefix of the sinks' modules."""
_CLIENT_LIBRARY = "prometheus_client"


class LoadError(Exception):
    """A handler cannot be loaded. The message is one sentence."""


def check(target: str, path: Sequence[str], owners: Collection[int]) -> None:
    """Check the owner and mode of the file of `module:name`, without running it. Raises `LoadError`."""
    module = target.partition(":")[0]
    if module.startswith(BUILT_IN):
        return
    parts = module.split(".")
    folders = path or site.getsitepackages()
    for folder in folders:
        base = Path(folder, *parts)
        names = (f"{base / '__init__'}", str(base))
        for name in (f"{name}{suffix}" for name in names for suffix in (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)):
            if Path(name).is_file():
                if reason := refusal(name, owners):
                    raise LoadError(f"module {module} is not trusted: {reason}")
                return
    raise LoadError(f"there is no module {module} in {', '.join(folders)}")


def load(target: str, path: Sequence[str]) -> Any:
    """Import `module`, and return its `name`. Raises `LoadError`, or any exception of the module."""
    module, _, name = target.partition(":")
    sys.path[:0] = [folder for folder in path if folder not in sys.path]
    importlib.invalidate_caches()
    found = importlib.import_module(module)
    if not hasattr(found, name):
        raise LoadError(f"module {module} has no {name}")
    return getattr(found, name)


class ImportGuard:
    """An import finder before all others. It rejects untrusted files of handlers, and untrusted files in their directories."""

    def __init__(self, modules: Collection[str], folders: Collection[str], owners: Collection[int], root: str) -> None:
        """`root` is the directory of the exporter's package, which may also have the client library that handlers use."""
        self._root = root
        self._modules = {module.partition(".")[0] for module in modules}
        self._folders = tuple(f"{Path(folder)}/" for folder in folders)
        self._owners = owners

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of a trusted module, None to let other finders search. Raises `LoadError` for an untrusted one."""
        spec = PathFinder.find_spec(name, [self._root]) if name == _CLIENT_LIBRARY else None
        spec = spec or PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None:
            if name.partition(".")[0] in self._modules or spec.origin.startswith(self._folders):
                self._refuse(name, spec.origin)
                if spec.cached is not None and os.path.exists(spec.cached):  # noqa: PTH110 - False if unreadable
                    self._refuse(name, spec.cached)
            return spec
        return None

    def _refuse(self, name: str, file: str) -> None:
        if reason := refusal(file, self._owners):
            raise LoadError(f"module {name} is not trusted: {reason}")
