"""Configuration files, and what is said of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.config import loading
from exporter.config.options import Config
from exporter.config.problems import ConfigError

Load = Callable[[str | bytes], Config]


def loader(folder: Path) -> Load:
    """Return a function that writes a file there and loads it."""

    def load(text: str | bytes) -> Config:
        path = folder / "exporter.yml"
        path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
        return loading.load(str(path))

    return load


def refusal(load: Load, text: str | bytes) -> str:
    """The message without the path of the file."""
    with pytest.raises(ConfigError) as caught:
        load(text)
    message = str(caught.value)
    assert message.isprintable()  # so it is one line
    file, _, rest = message.partition(": ")
    assert file.endswith("exporter.yml")
    return rest


def keys_of(section: type[Any], prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(section):
        factory: Any = field.default_factory
        if isinstance(factory, type):
            yield from keys_of(factory, f"{prefix}{field.name}.")
        elif "check" in field.metadata and "flag_only" not in field.metadata:
            yield prefix + field.name


KEYS = list(keys_of(Config))
