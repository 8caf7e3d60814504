"""What a turn is pinned to (K12): kept in the store under its digest, named by `turn.started`, the same after any restart."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from talon.domain.session import SessionRow
from talon.manifest.effective import Effective, Limits, Profile
from talon.manifest.features import session_features
from talon.manifest.prompt import render_prompt
from talon.tools.protocol import ToolSpec


class Definition(msgspec.Struct, frozen=True, omit_defaults=True):
    """Prompt, models, limits and tool schemas of one turn, every place filled in. `profiles` are tried in order."""

    namespace: str
    agent: str
    revision: int
    system_prompt: str
    profiles: tuple[Profile, ...]
    limits: Limits = Limits()
    tools: tuple[ToolSpec, ...] = ()
    features: dict[str, Any] = {}


_DECODER = msgspec.json.Decoder(Definition)


def encode(definition: Definition) -> tuple[str, bytes]:
    """-> (digest, bytes). The same definition gives the same digest in every process."""
    body = msgspec.json.encode(definition, order="deterministic")
    return hashlib.sha256(body).hexdigest(), body


def decode(body: bytes) -> Definition:
    """Back from `encode`."""
    return _DECODER.decode(body)
