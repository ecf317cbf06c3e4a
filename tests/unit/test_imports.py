"""What the serving process imports: modules that it does not need cost memory for as long as it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNNEEDED = {
    "_hashlib": "libcrypto, 3 MiB",
    "bz2": "of shutil, for archives",
    "email": "of http.client",
    "exporter.handlers.parent": "handlers are optional",
    "exporter.sources.scan": "of other modes",
    "exporter.web.tls": "TLS is optional",
    "html.entities": "of html",
    "http.client": "of prometheus_client",
    "lzma": "of shutil, for archives",
    "prometheus_client": "for registries of handlers",
    "psutil": "for the mode scan",
    "sqlite3": "for a sink",
    "ssl": "TLS is optional",
    "subprocess": "the broker starts loaders",
    "tempfile": "no file is written",
    "urllib.request": "of prometheus_client",
    "yaml": "for a configuration file",
}
_START = """
import sys
sys.path.insert(0, sys.argv[1])
import exporter.app, exporter.cli, exporter.loaders.broker, exporter.sources.ebpf.cpu_audit, exporter.sources.ebpf.source
from exporter.config.options import Config
from exporter.loaders.direct import Direct
from exporter.records.hub import Hub
from exporter.supervision.modes import loader_settings
from exporter.supervision.supervisor import Supervisor
from exporter.web.pages import Pages
exporter.cli.parse(["--mode=ebpf_core"])
config = Config()
supervisor = Supervisor(config, Hub(1), Direct(loader_settings(config)))
pages = Pages(config, supervisor, lambda: None, Hub(1))
print(*sys.modules)
"""


def test_the_serving_process_imports_what_it_needs() -> None:
    """With all defaults, in the best mode. A module that comes back here is often a MiB, for it brings others."""
    command = [sys.executable, "-I", "-c", _START, str(ROOT)]
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}  # it imports much
    modules = set(subprocess.run(command, capture_output=True, text=True, check=True, env=unmeasured).stdout.split())
    assert {"exporter.web.server", "exporter.metrics.protobuf"} <= modules
    assert {name: why for name, why in UNNEEDED.items() if name in modules} == {}
