"""Reads protobuf scrapes with the official definition, tests/fixtures/metrics.proto, which is that of prometheus/client_model."""

from __future__ import annotations

import tempfile
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

DEFINITION = Path(__file__).parents[1] / "fixtures/metrics.proto"


@cache
def _message() -> type[Any]:
    with tempfile.TemporaryDirectory() as folder:
        described = Path(folder, "described")
        paths = [f"-I{DEFINITION.parent}", f"-I{resources.files('grpc_tools') / '_proto'}"]
        status = protoc.main(["protoc", *paths, "--include_imports", f"--descriptor_set_out={described}", DEFINITION.name])
        assert status == 0
        files = descriptor_pb2.FileDescriptorSet.FromString(described.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for each in files.file:
        pool.Add(each)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("io.prometheus.client.MetricFamily"))


def parse_protobuf(body: bytes) -> list[Any]:
    """The families of a scrape. Raises if anything is not understood."""
    families, rest = [], memoryview(body)
    while rest:
        length, rest = _varint(rest)
        assert len(rest) >= length
        family = _message().FromString(bytes(rest[:length]))
        size = family.ByteSize()
        family.DiscardUnknownFields()
        assert family.ByteSize() == size, "a field is not in the definition"
        families.append(family)
        rest = rest[length:]
    return families


def _varint(data: memoryview) -> tuple[int, memoryview]:
    value = 0
    for at, octet in enumerate(data):
        value |= (octet & 0x7F) << 7 * at
        if octet < 0x80:
            return value, data[at + 1 :]
    raise ValueError("a varint without an end")
