"""Checks Kubernetes manifests, a YAML stream on standard input, against the schemas of their kinds, in which no key may be unknown.

A program of its own, with what it imports in .venv/schemas: one of these packages brings a plugin for pytest that breaks it.
"""

from __future__ import annotations

import sys
from typing import Any

import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1

VERSIONS = ("1.25", "1.37")
"""The oldest and the newest that kubernetes-validate knows."""


def check(manifest: dict[str, Any]) -> None:
    if manifest["kind"] != "PodMonitor":
        for each in VERSIONS:
            kubernetes_validate.validate(manifest, each, strict=True)
    elif v1.PodMonitor.model_validate(manifest).model_dump(mode="json", by_alias=True, exclude_unset=True) != manifest:
        raise ValueError("it has keys that a PodMonitor has not")


if __name__ == "__main__":
    for each in yaml.safe_load_all(sys.stdin):
        try:
            check(each)
        except Exception as error:  # noqa: BLE001 - each package has its own
            sys.stderr.write(f"{each['kind']}: {error}\n")
