"""Grants as text (`developer@acme`, `admin@*`) and as they are stored. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec

from talon.access.roles import EVERYWHERE, ROLES, Grant
from talon.domain.ids import is_namespace


def grant_of(text: str) -> Grant:
    """The grant that `ROLE@NAMESPACE` means. Raises `ValueError`, in words for people."""
    role, at, namespace = text.partition("@")
    if not at:
        raise ValueError(f"{text!r}: expected ROLE@NAMESPACE, as in developer@acme; * is every namespace")
    return checked(role, namespace)


def checked(role: str, namespace: str) -> Grant:
    """A grant of a role that exists in what can be a namespace. Raises `ValueError`, in words for people."""
    if role not in ROLES:
        raise ValueError(f"{role!r} is no role: the roles are {', '.join(ROLES)}")
    if namespace != EVERYWHERE and not is_namespace(namespace):
        raise ValueError(f"{namespace!r} is no namespace: names of a-z, 0-9 and -, joined by :, or * for every one")
    return Grant(role, namespace)


def text_of(grant: Grant) -> str:
    """`ROLE@NAMESPACE`."""
    return f"{grant.role}@{grant.namespace}"


def claimed(value: object, most: int) -> tuple[Grant, ...]:
    """The grants in a token's claim: a list of texts, or one text with spaces between them. What is no grant there is passed over
    (the claim may be a list of groups, of which some are grants); of more than `most`, none counts."""
    texts = value.split() if isinstance(value, str) else cast(list[object], value) if isinstance(value, list) else []
    found: dict[Grant, None] = {}
    for text in texts[: most + 1]:
        if isinstance(text, str) and "@" in text:
            try:
                found[grant_of(text)] = None
            except ValueError:
                continue
    return tuple(sorted(found)) if len(texts) <= most else ()


def encode(grants: Sequence[Grant]) -> bytes:
    """As a store keeps them."""
    return msgspec.json.encode(sorted(set(grants)))


def decode(data: bytes) -> tuple[Grant, ...]:
    """As they were stored."""
    return msgspec.json.decode(data, type=tuple[Grant, ...])
