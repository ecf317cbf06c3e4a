"""Reads YAML as plain values, more strictly than PyYAML: no duplicate keys, and bounds on depth and on aliases."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from exporter.config.problems import Problem, one_line, short

_MAX_DEPTH = 20
_MAX_SCALAR = 1000
_MAX_REPEATED = 10_000
"""Most values that aliases may repeat in total. Otherwise a few lines of nested aliases become millions of values."""
_MERGE = "tag:yaml.org,2002:merge"
_PLAINER = {
    r"found character '\t'": "a tab cannot indent: use spaces",
    "that cannot start any token": "text that begins with this character needs quotes",
    "mapping values are not allowed here": "unexpected colon: check the line above and the indentation, or put the value in quotes",
    "could not find expected ':'": "a key needs a colon after it, and a space before its value",
    "but found '<scalar>'": "unexpected text after a value: put the whole value in quotes",
    "expected <block end>": "the indentation does not fit the lines above",
    "expected alphabetic or numeric character": "text that begins with * or & needs quotes",
    "found undefined alias": "no &NAME further up defines this alias; text that begins with * needs quotes",
    "found duplicate anchor": "an anchor of this name is defined further up: take another name",
    "found unexpected end of stream": "a quote is not closed",
    "expected ',' or": "a bracket is not closed, or a comma is missing",
    "expected a single document": "a second document begins: a file holds one",
}
"""Clearer messages, by a part of PyYAML's message."""


class BadYaml(Exception):
    """The text is not YAML, or exceeds a bound. The message says where, on one line."""


def parse(text: str) -> tuple[Any, list[Problem]]:
    """Return plain values, and the problems of values that cannot be read; these are None. Raises `BadYaml`."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            return None if node is None else loader.plain(node, ()), loader.problems
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        said = f"{error.context}: {error.problem}"
        plainer = next((plainer for part, plainer in _PLAINER.items() if part in said), error.problem or error.context)
        raise BadYaml(one_line(f"{where}{plainer}")) from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise BadYaml(one_line(str(error).partition("\n")[0])) from None


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.problems: list[Problem] = []
        self._depth = 0
        self._visited: set[Node] = set()
        self._open: set[Node] = set()
        self._repeated = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        if self._depth > _MAX_DEPTH:
            raise _error(f"nested more than {_MAX_DEPTH} deep", self.peek_event())  # type: ignore[no-untyped-call]
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def plain(self, node: Node, path: tuple[str, ...]) -> Any:
        """Return the plain value of a node; `path` is its path."""
        if node in self._open:
            raise _error("an alias cannot refer to what contains it", node)
        if len(path) > _MAX_DEPTH:
            raise _error(f"nested more than {_MAX_DEPTH} deep by aliases", node)
        self._repeated += node in self._visited
        self._visited.add(node)
        if self._repeated > _MAX_REPEATED:
            raise _error(f"aliases repeat more than {_MAX_REPEATED} values", node)
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        self._open.add(node)
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, path)
            return [self.plain(item, (*path, f"[{index}]")) for index, item in enumerate(node.value)]
        finally:
            self._open.remove(node)

    def _scalar(self, node: Node, path: tuple[str, ...]) -> Any:
        # YAML reads 1:1:1:... as a number, which takes seconds if it is long. Text may be long: certificates are.
        if len(node.value) > _MAX_SCALAR and not node.tag.endswith(":str"):
            return self._problem(f"'{short(node.value)}' is longer than {_MAX_SCALAR} characters", path)
        try:
            return self.construct_object(node)
        except Exception:  # noqa: BLE001 - PyYAML raises all kinds: for an unknown tag, a date like 2026-99-99, `!!bool x`, `!!timestamp x`
            return self._problem(f"'{short(node.value)}' cannot be read as {node.tag.removeprefix('tag:yaml.org,2002:')}", path)

    def _mapping(self, node: MappingNode, path: tuple[str, ...]) -> dict[str, Any]:
        """Return a mapping. Its own keys override those that it merges (`<<: *base`)."""
        mapping: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise _error("a key has to be a word", key)
            inside = (*path, key.value)
            if key.value in seen:
                self._problem(f"duplicate key, again on line {key.start_mark.line + 1}", inside)
            elif key.tag != _MERGE:
                mapping[key.value] = self.plain(value, inside)
            elif isinstance(value, MappingNode):
                merged = self.plain(value, inside)
            else:
                self._problem("merges one mapping: write <<: *NAME", inside)
            seen.add(key.value)
        return merged | mapping

    def _problem(self, reason: str, path: tuple[str, ...]) -> None:
        problem = Problem(reason)
        for name in reversed(path):
            problem = problem.inside(name)
        self.problems.append(problem)


def _error(reason: str, where: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=reason, problem_mark=where.start_mark)
