"""From names of pods to names of workloads."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.attribution.workloads import workload

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def _encoded(text: str) -> str:
    """As `SafeEncodeString` of Kubernetes does."""
    return "".join(_ALPHABET[ord(char) % len(_ALPHABET)] for char in text)


def _generated(base: str, chance: random.Random) -> str:
    """As `GenerateName` of Kubernetes does."""
    return base[:58] + "".join(chance.choice(_ALPHABET) for _ in range(5))


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        ("web-5d4b9c8f7c-x2k4d", "web"),
        ("mysql-db-1234567890-x2k4d", "mysql-db"),
        ("node-exporter-x2k4d", "node-exporter"),
        ("mysql-db-x2k4d", "mysql-db"),
        ("backup-27875520-x2k4d", "backup"),
        ("backup-1672531200-x2k4d", "backup"),
        ("train-17-x2k4d", "train"),
        ("train-27875520-17-x2k4d", "train"),
        ("web-0", "web"),
        ("web-12", "web"),
        ("nginx", "nginx"),
        ("my-nginx", "my-nginx"),
        ("backup-20261130", "backup-20261130"),
        ("", ""),
        ("-0", "-0"),
    ],
)
def test_suffixes_of_kubernetes_are_cut(pod: str, expected: str) -> None:
    """Each controller adds its own; a label must be the same for all pods of a workload."""
    assert workload(pod) == expected


@given(st.integers(10_000_000, 2**32 - 1), st.integers(1, 70), st.integers())
def test_all_pods_of_a_deployment_are_one_workload(number: int, length: int, seed: int) -> None:
    """Whatever the hash is, and also where Kubernetes cuts the name."""
    deployment = "a" * length
    chance = random.Random(seed)
    pods = [_generated(f"{deployment}-{_encoded(str(number))}-", chance) for _ in range(3)]
    assert {workload(pod) for pod in pods} == {deployment[:58]}


@given(st.text(max_size=300))
def test_any_name_has_a_workload(pod: str) -> None:
    """It must not raise, and not make a name that is longer or empty."""
    assert pod.startswith(workload(pod))
    assert bool(workload(pod)) == bool(pod)
