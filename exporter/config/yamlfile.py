"""YAML as plain values, stricter than PyYAML: no key twice, no anchors or aliases (a short file can't grow into a huge one), no depth."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from exporter.config.checks import InvalidValue, one_line, short

_MAX_DEPTH = 20
_MAX_SCALAR = 1000


class BadYaml(Exception):
    """The text is not YAML, or YAML that is not taken. The message says where, on one line."""


def parse(text: str) -> Any:
    """Turn text into plain values. Raises `BadYaml`, or `InvalidValue` for a value, with its key."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            return None if node is None else loader.plain(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise BadYaml(one_line(f"{where}{error.problem or error.context}")) from None
    except yaml.YAMLError as error:  # a character that YAML does not have
        raise BadYaml(str(error).partition("\n")[0]) from None


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(problem="anchors (&) and aliases (*) are not taken", problem_mark=event.start_mark)
        if self._depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested more than {_MAX_DEPTH} deep", problem_mark=event.start_mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def plain(self, node: Node) -> Any:
        """Values of a node, each error with the key where it is."""
        if isinstance(node, MappingNode):
            return self._mapping(node)
        if isinstance(node, SequenceNode):
            return [self._inside(f"[{index}]", item) for index, item in enumerate(node.value)]
        # Reading 1:1:1:... as the number that YAML sees in it takes seconds; text may be long, as a certificate is
        if len(node.value) > _MAX_SCALAR and not node.tag.endswith(":str"):
            raise InvalidValue(f"'{short(node.value)}' is longer than {_MAX_SCALAR} characters")
        try:
            return self.construct_object(node)
        except (yaml.YAMLError, ValueError):  # an unknown tag, a date like 2026-99-99, an integer of 5,000 digits
            raise InvalidValue(f"'{short(node.value)}' can't be read as {node.tag.removeprefix('tag:yaml.org,2002:')}") from None

    def _mapping(self, node: MappingNode) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key has to be a word", problem_mark=key.start_mark)
            if key.value in mapping:
                raise InvalidValue(f"given twice (again on line {key.start_mark.line + 1})").inside(key.value)
            mapping[key.value] = self._inside(key.value, value)
        return mapping

    def _inside(self, name: str, node: Node) -> Any:
        try:
            return self.plain(node)
        except InvalidValue as wrong:
            raise wrong.inside(name) from None
