"""Writes deploy/helm/values.schema.json, from values.yaml and from the schema of the configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from exporter.config.options import Config
from exporter.config.sections import document

VALUES = Path(__file__).parents[1] / "deploy/helm/values.yaml"
_OPEN = {"affinity", "global", "nodeSelector", "resources", "securityContext", "updateStrategy"} | {
    f"{each}Probe" for each in ("liveness", "readiness", "startup")
}
"""Objects of Kubernetes, and what other charts read: they may have other keys and types than the default has."""
_NUMBER = {"type": "number", "minimum": 0}
_STRICTER: dict[str, dict[str, Any]] = {
    "config": document(Config).schema,
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "prometheusRule.limits": {"additionalProperties": {"anyOf": [_NUMBER, {"type": "object", "additionalProperties": _NUMBER}]}},
    "seccompProfile": {
        "properties": {"type": {"enum": ["Localhost", "RuntimeDefault", "Unconfined"]}, "localhostProfile": {"type": "string"}},
        "additionalProperties": False,
    },
    "service.port": {"minimum": 1, "maximum": 65535},
    "webConfig.scheme": {"enum": ["HTTP", "HTTPS"]},
}
_TYPES = {bool: "boolean", int: "integer", str: "string", list: "array"}


def schema() -> str:
    """Return the JSON schema of the values: their types are those of the defaults, and no key may be unknown."""
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart shortproc-exporter"}
    return json.dumps(head | _of(yaml.safe_load(VALUES.read_text()), ""), indent=2) + "\n"


def _of(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {"type": _TYPES[type(value)]} | _STRICTER.get(path, {})
    if path in _STRICTER or path in _OPEN or not value:
        return {"type": "object"} | _STRICTER.get(path, {})
    keys = {key: _of(each, f"{path}.{key}".lstrip(".")) for key, each in value.items()}
    return {"type": "object", "properties": keys, "additionalProperties": False}
