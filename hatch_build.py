"""Builds the BPF objects into the wheel where clang is there; without it it is made all the same, and `doctor` says what is missing.

Wheel and sdist also get `_revision`: where they are unpacked there is no `.git` to ask.
"""

from __future__ import annotations

import runpy
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it packs. An editable install uses what `make` built, and the checkout's own `.git`."""
        if version == "editable":
            return
        self._add_revision(build_data["force_include"])
        if self.target_name == "wheel":
            self._add_programs(build_data["force_include"])
            self._add_documents(build_data["force_include"])

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Called when it has packed."""
        if version != "editable":
            self._folder.cleanup()

    @property
    def _package(self) -> Path:
        return Path(self.root) / "exporter"

    def _add_revision(self, include: dict[str, str]) -> None:
        """Not by way of a file in the checkout, which would still name this revision when the next one is checked out."""
        self._folder = tempfile.TemporaryDirectory()
        sys.path.insert(0, self.root)
        revision = import_module("exporter.process.version").revision(self._package)
        file = Path(self._folder.name) / "_revision"
        file.write_text(f"{revision}\n", encoding="ascii")
        if not (self._package / "_revision").exists():  # from an sdist it is there already
            include[str(file)] = "exporter/_revision"

    def _add_documents(self, include: dict[str, str]) -> None:
        """The page links to them."""
        for document in (Path(self.root) / "docs").glob("*.md"):
            include[str(document)] = f"exporter/_docs/{document.name}"

    def _add_programs(self, include: dict[str, str]) -> None:
        bpf = Path(self.root) / "bpf"
        for name in ("lifecycle.bcc.c", "live_processes.bcc.c", "task.bcc.c", "lifecycle.h", "native.h", "include"):
            include[str(bpf / name)] = f"exporter/_bpf/{name}"
        recipe = runpy.run_path(str(bpf / "build.py"))
        outputs = {name: self._package / "_bpf" / name for name in recipe["OBJECTS"]}
        try:
            for output in outputs.values():
                recipe["build"](output)
        except (OSError, subprocess.CalledProcessError) as error:
            for output in outputs.values():
                output.unlink(missing_ok=True)
            self.app.display_warning(f"the BPF objects were not built ({error}); the exporter will fall back to scanning /proc")
        else:
            include.update({str(output): f"exporter/_bpf/{name}" for name, output in outputs.items()})
