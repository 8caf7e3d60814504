"""What resources are called, what they refer to, and how namespaces lie within each other."""

from __future__ import annotations

from typing import Literal

import msgspec

Identity = tuple[str, str, str]  # namespace, kind, name; the namespace of a Namespace is ""

#: Kinds that the children of a namespace see unless one of the same name is nearer to them.
INHERITED_KINDS = frozenset({"AgentTemplate", "Knowledge", "McpServer"})


class Ref(msgspec.Struct, frozen=True, order=True):
    """What a resource refers to: a resource of this kind and name, in its own namespace or (`INHERITED_KINDS`) the nearest
    ancestor's."""

    kind: str
    name: str


class Requirement(msgspec.Struct, frozen=True):
    """One requirement on labels. `in` and `notin` take values; `notin` also holds where the label is absent; `exists` and `absent`
    take none. Equality is `in` with one value."""

    key: str
    operator: Literal["in", "notin", "exists", "absent"]
    values: tuple[str, ...] = ()


def lineage(namespace: str) -> tuple[str, ...]:
    """A namespace and those that it lies in, nearest first: `acme:eu:de`, `acme:eu`, `acme`. They are compared by segment."""
    parts = namespace.split(":")
    return tuple(":".join(parts[:end]) for end in range(len(parts), 0, -1))


def candidates(namespace: str, ref: Ref) -> tuple[Identity, ...]:
    """Who `ref` may mean in `namespace`: the first of these that exists."""
    where = lineage(namespace) if ref.kind in INHERITED_KINDS else (namespace,)
    return tuple((one, ref.kind, ref.name) for one in where)
