"""Checks Kubernetes manifests, a YAML stream on standard input, against the schemas of their kinds, in which no key may be unknown.

A program of its own, with what it imports in .venv/schemas: one of these packages brings a plugin for pytest that breaks it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

# Grammars that no manifest needs, and kinds of another version: to make them takes longer than all the rest
sys.modules |= {name: ModuleType(name) for name in ("rfc3987_syntax", "cloudcoil.models.prometheus_operator.v1alpha1")}

import kubernetes_validate  # noqa: E402
import yaml  # noqa: E402
from cloudcoil.models.prometheus_operator import v1  # noqa: E402

VERSIONS = ("1.25", "1.37")
"""The oldest and the newest that kubernetes-validate knows."""
OF_THE_OPERATOR = {each.__name__: each for each in (v1.PodMonitor, v1.PrometheusRule, v1.ServiceMonitor)}


def check(manifest: dict[str, Any]) -> None:
    kind = manifest["kind"]
    if kind not in OF_THE_OPERATOR:
        for each in VERSIONS:
            kubernetes_validate.validate(manifest, each, strict=True)
    elif OF_THE_OPERATOR[kind].model_validate(manifest).model_dump(mode="json", by_alias=True, exclude_unset=True) != manifest:
        raise ValueError(f"it has keys that a {kind} has not")


if __name__ == "__main__":
    for each in yaml.load_all(sys.stdin, yaml.CSafeLoader):
        try:
            check(each)
        except Exception as error:  # noqa: BLE001 - each package has its own
            sys.stderr.write(f"{each['kind']} {each['metadata']['name']}: {' '.join(str(error).split())}\n")
