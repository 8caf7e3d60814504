"""What a turn would need and cannot have: it is denied by name, before any model is called."""

from __future__ import annotations

from typing import Any

import pytest

from support.manifestworld import session_row
from talon.domain.models import Models
from talon.manifest.effective import Effective, Profile, encode
from talon.store.resources import RevisionRow
from talon.tools.registry import Registry
from talon.turn.definition import Definitions, Pin, Unresolved

PROFILES = (Profile("p", "scripted", "m"),)


class Revisions:
    """A store that knows one revision."""

    def __init__(self, effective: Effective) -> None:
        self._row = RevisionRow("acme", "a", 1, encode(effective), "", "", b"{}", 0)

    async def get_revision(self, namespace: str, agent: str, revision: int) -> RevisionRow | None:
        return self._row if (namespace, agent, revision) == ("acme", "a", 1) else None

    async def put_definition(self, digest: str, body: bytes) -> None:
        pass


async def pin(**parts: Any) -> Pin | Unresolved:
    store: Any = Revisions(Effective("acme", "a", "", PROFILES, **parts))
    session = session_row("acme", "a", "s", b"{}", b"{}", "")
    return await Definitions(store, Registry([]), ("scripted",), Models()).pin(session, 1)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            {"knowledge_refs": ("policies", "faq")},
            "knowledgeRefs names 'policies', 'faq': this version gives no knowledge to agents",
        ),
        ({"tool_refs": ("stripe",)}, "to an McpServer that is a resource this version does not connect"),
    ],
)
async def test_what_this_version_only_stores_is_named_in_the_denial(parts: dict[str, Any], words: str) -> None:
    found = await pin(**parts)
    assert isinstance(found, Unresolved)
    assert found.reason == "unresolved_reference"
    assert words in found.detail


async def test_an_agent_that_needs_none_of_it_runs() -> None:
    assert isinstance(await pin(), Pin)
