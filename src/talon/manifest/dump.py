"""Manifests as YAML that `parse` reads back as it was, whatever is in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import yaml

from talon.manifest.kinds import KINDS
from talon.manifest.quoting import style_of


def yaml_of(documents: Iterable[Any]) -> str:
    """The documents one after the other, fields in their order, texts of several lines as blocks. What a reader could take for a
    number, a date or a boolean is quoted."""
    return yaml.dump_all(
        documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, explicit_start=True, default_flow_style=False
    )


def export_of(bodies: Iterable[bytes]) -> str:
    """Stored manifests as YAML documents in an order in which each can be applied: what is referred to stands before what refers
    to it. They hold no server's stamps and no secret's value, because stored manifests do not."""
    documents: list[dict[str, Any]] = [msgspec.json.decode(body) for body in bodies]
    documents.sort(key=lambda one: (KINDS.index(one["kind"]), one["metadata"].get("namespace", ""), one["metadata"]["name"]))
    return yaml_of(documents)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style_of(value))  # pyright: ignore[reportUnknownMemberType]


_Dumper.add_representer(str, _text)
