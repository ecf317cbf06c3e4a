"""Reads configuration files, and overrides single options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from exporter.config.options import Config
from exporter.config.problems import ConfigError, InvalidValue, one_line
from exporter.config.sections import document

_Read = TypeVar("_Read")

_MAX_BYTES = 1 << 20


def load(path: str) -> Config:
    """Read a file. Raises `ConfigError` with all its problems."""
    settings: Config = read(path, document(Config).read)
    return settings


def read(path: str, convert: Callable[[object], _Read]) -> _Read:
    """Read a YAML file and return `convert(content)`, which may raise `InvalidValue`. Raises `ConfigError` with all problems."""
    from exporter.config import yamlfile  # noqa: PLC0415 - yaml costs memory, and many run without a file

    name = one_line(path) or "''"
    try:
        content, problems = yamlfile.parse(_text(path, name))
    except yamlfile.BadYaml as bad:
        raise ConfigError(f"{name}: {bad}") from None
    try:
        converted = convert(content)
    except InvalidValue as invalid:
        reported = {each.at for each in problems}  # a value that could not be read is reported once
        problems += (each for each in invalid.problems if each.at not in reported)
    if problems:
        raise ConfigError(*(f"{name}: {each.at or 'top level'}: {each.reason}" for each in problems))
    return converted


def override(config: Config, key: str, value: object, name: str) -> Config:
    """Replace one option; `name` is what a message calls it. Raises `ConfigError`."""
    try:
        replaced: Config = _replaced(config, key.split("."), value)
    except InvalidValue as invalid:
        raise ConfigError(*(f"{name}: {each.reason}" for each in invalid.problems)) from None
    return replaced


def after_reload(running: Config, fresh: Config) -> tuple[Config, list[str]]:
    """Return the configuration after a reload of `fresh` while `running` is in use, and the keys whose change needs a restart."""
    kept = running.detection  # counters and the loader depend on these two
    detection = replace(fresh.detection, short_threshold_seconds=kept.short_threshold_seconds, ebpf_bcc=kept.ebpf_bcc)
    config = replace(running, detection=detection, log=fresh.log)
    return config, _different(config, fresh)


def _different(one: Any, other: Any) -> list[str]:
    names: list[str] = []
    for each in fields(one):
        mine, theirs = getattr(one, each.name), getattr(other, each.name)
        if is_dataclass(mine):
            names += (f"{each.name}.{name}" for name in _different(mine, theirs))
        elif mine != theirs:
            names.append(each.name)
    return names


def _replaced(node: Any, keys: list[str], value: object) -> Any:
    name, *rest = keys
    if rest:
        return replace(node, **{name: _replaced(getattr(node, name), rest, value)})
    check = next(each.metadata["check"] for each in fields(node) if each.name == name)
    return replace(node, **{name: check.read(value)})


def _text(path: str, name: str) -> str:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib takes an empty path for the working directory
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{name}: cannot be read: {reason.lower()}") from None
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{name}: larger than {_MAX_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}: line {line}: not UTF-8") from None
