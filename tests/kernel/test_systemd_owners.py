"""Units of a real systemd have their owners. Skipped where systemd-nspawn can't run."""

from __future__ import annotations

import itertools
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.attribution.container_names import ContainerNames
from exporter.attribution.owners import Owners
from exporter.model.owner import Owner
from exporter.sources.ebpf.source import EbpfSource
from tests.kernel.nspawn import booted
from tests.kernel.programs import SLOW, Program, until, watching
from tests.kernel.test_origins import of
from tests.kernel.throwaway import throwaway
from tests.origins import origins_of

_COUNT = int(os.environ.get("SYSTEMD_UNITS", "10"))
BOOTED = ("running", "degraded")
_START = """
for name in {names}; do
    systemd-run --quiet --collect --no-block --unit=job-$name.service {program}
    systemd-run --quiet --collect --scope --unit=job-$name.scope {program}
done
while systemctl list-units --all --plain --no-legend 'job-*' | grep -q .; do sleep 0.1; done
"""


@pytest.fixture
def source(requires_bpf: None) -> Iterator[EbpfSource]:
    with watching(SLOW) as source:
        yield source


def test_units_have_their_owners(source: EbpfSource, nothing: Program, tmp_path: Path) -> None:
    """Each service and scope lives for milliseconds: nobody could look at it. Below the container's root, paths are those of a host."""
    names = ["".join(letters) for letters in itertools.islice(itertools.product("ghijklmnop", repeat=3), _COUNT)]
    with throwaway(tmp_path) as machine:
        program = Path("usr/local/bin", nothing.path.name)
        shutil.copy(nothing.path, machine.root / program)
        with booted(machine) as container:
            assert until(lambda: container.systemctl("is-system-running"), BOOTED.__contains__) in BOOTED
            root = container_root(container.init)
            container.run("sh", "-c", _START.format(names=" ".join(names), program=f"/{program}"), seconds=600)
            origins = of(origins_of(source), nothing.comm)
    owners = Owners("pod", ContainerNames())
    paths = [each.cgroup for each in origins.elements()]
    assert all(path.startswith(root) for path in paths), paths
    found = Counter(owners.owner(path.removeprefix(root)) for path in paths)
    assert found == Counter(Owner(kind, f"job-{name}.{kind}") for name in names for kind in ("service", "scope"))


def container_root(init: int) -> bytes:
    """Where its hierarchy begins on the host."""
    lines = Path(f"/proc/{init}/cgroup").read_bytes().splitlines()
    return next(line for line in lines if line.startswith(b"0::"))[3:].removesuffix(b"/init.scope")
