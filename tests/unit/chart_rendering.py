"""Lints and renders the Helm chart with each of several values, JSON on standard input by name; writes JSON to standard output.

A program of its own, as manifest_schemas.py: Helm is a Go library, whose threads and signal handlers stay.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import helm_python


def rendered(chart: helm_python.Chart, path: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the text of each template and what the linter says, or the error."""
    try:
        texts = chart.render(values, name="demo", namespace="monitoring")
    except helm_python.HelmError as error:
        return {"error": str(error)}
    report = helm_python.lint(path, values, strict=True, namespace="monitoring")
    findings = [each["error"] for each in report["messages"] if each["severity"] > 1]
    return {"texts": {name.rpartition("/")[2]: text for name, text in texts.items()}, "findings": findings + report["errors"]}


if __name__ == "__main__":
    with helm_python.Chart.load(sys.argv[1]) as loaded:
        json.dump({name: rendered(loaded, sys.argv[1], values) for name, values in json.load(sys.stdin).items()}, sys.stdout)
