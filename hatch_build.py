"""Builds the BPF object into the wheel where clang is there; without it it is made all the same, and `doctor` says what is missing."""

from __future__ import annotations

import runpy
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it packs. An editable install uses what `make` built."""
        if version == "editable":
            return
        root = Path(self.root)
        for name in ("lifecycle.bcc.c", "births.bcc.c", "task.bcc.c", "lifecycle.h", "include"):
            build_data["force_include"][str(root / "bpf" / name)] = f"exporter/_bpf/{name}"
        output = root / "exporter" / "_bpf" / "lifecycle.bpf.o"
        try:
            runpy.run_path(str(root / "bpf" / "build.py"))["build"](output)
        except (OSError, subprocess.CalledProcessError) as error:
            output.unlink(missing_ok=True)
            self.app.display_warning(f"the BPF object was not built ({error}); the exporter will fall back to scanning /proc")
        else:
            build_data["force_include"][str(output)] = "exporter/_bpf/lifecycle.bpf.o"
