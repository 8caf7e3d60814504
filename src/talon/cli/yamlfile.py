"""YAML with line numbers: values as plain Python, and for every path the line it stands on."""

from __future__ import annotations

from typing import Any, cast

import yaml

Path = tuple[str, ...]


class NotYaml(Exception):
    """The text cannot be read; the message says why and on which line."""


def parse(text: str) -> tuple[Any, dict[Path, int]]:
    """One document -> (value, line of each mapping key by path). Empty text gives None. Raises `NotYaml`, also for a key
    that stands twice: the second would win in silence."""
    lines: dict[Path, int] = {}
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        return (None if node is None else _value(loader, node, (), lines)), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise NotYaml(f"{where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise NotYaml(str(error).splitlines()[0]) from None
    finally:
        loader.dispose()


def _value(loader: yaml.SafeLoader, node: yaml.Node, path: Path, lines: dict[Path, int]) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*path, str(i)), lines) for i, item in enumerate(cast(list[yaml.Node], node.value))]
    if not isinstance(node, yaml.MappingNode):
        return cast(Any, loader.construct_object(node))  # type: ignore[no-untyped-call]
    loader.flatten_mapping(node)
    result: dict[str, Any] = {}
    for key_node, value_node in cast(list[tuple[yaml.Node, yaml.Node]], node.value):
        key = str(key_node.value)
        line = key_node.start_mark.line + 1
        if key in result:
            raise NotYaml(f"line {line}: the key {key!r} stands twice (first on line {lines[(*path, key)]})")
        lines[(*path, key)] = line
        result[key] = _value(loader, value_node, (*path, key), lines)
    return result
