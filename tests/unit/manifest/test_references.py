"""What manifests refer to: each kind, its fields, and that no circle can be made of them."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from talon.domain.resources import Ref, candidates, lineage
from talon.manifest.document import path_text
from talon.manifest.kinds import DOCS, KINDS, Doc
from talon.manifest.parse import parse
from talon.manifest.read import read
from talon.manifest.references import places, refs

DEFINITION = {"mcpServerRefs": ["m1"], "customSpec": {"knowledgeRefs": ["k1"]}}
SPECS: dict[str, dict[str, Any]] = {
    "Namespace": {},
    "Secret": {"spec": {"value": "v"}},
    "McpServer": {"spec": {"transport": "stdio", "command": "c", "env": {"A": "plain", "B": {"secretRef": "s1"}}}},
    "Knowledge": {"spec": {"documents": [{"name": "a.md", "content": "text"}]}},
    "AgentTemplate": {"definition": DEFINITION},
    "Agent": {"spec": {"templateRef": "t1", "mcpServerRefs": ["m1", "m2"], "knowledgeRefs": ["k1"]}},
    "Session": {"spec": {"agent": "a1"}},
    "McpBinding": {"spec": {"server": "m1", "agents": ["a1"], "auth": {"kind": "bearer", "secretRef": "s1"}}},
    "Schedule": {
        "spec": {"kind": "every", "every": "5m", "target": {"agent": "a1", "sessionMode": "new"}, "inputMessage": "go"},
    },
}  # fmt: skip


def model(kind: str) -> Doc:
    data = {"apiVersion": "talon.dev/v1alpha1", "kind": kind, "metadata": {"name": "x"}, **SPECS[kind]}
    found = read(parse(msgspec.json.encode(data)))
    assert found.errors == []
    return found.manifests[0].model


def test_every_kind_is_looked_at() -> None:
    assert set(SPECS) == set(KINDS) == set(DOCS)
    assert set(get_args(Doc)) == set(DOCS.values())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("McpServer", {"spec.env.B.secretRef": Ref("Secret", "s1")}),
        (
            "AgentTemplate",
            {
                "definition.mcpServerRefs[0]": Ref("McpServer", "m1"),
                "definition.customSpec.knowledgeRefs[0]": Ref("Knowledge", "k1"),
            },
        ),
        (
            "Agent",
            {
                "spec.templateRef": Ref("AgentTemplate", "t1"),
                "spec.mcpServerRefs[0]": Ref("McpServer", "m1"),
                "spec.mcpServerRefs[1]": Ref("McpServer", "m2"),
                "spec.knowledgeRefs[0]": Ref("Knowledge", "k1"),
            },
        ),
        (
            "McpBinding",
            {
                "spec.server": Ref("McpServer", "m1"),
                "spec.agents[0]": Ref("Agent", "a1"),
                "spec.auth.secretRef": Ref("Secret", "s1"),
            },
        ),
        ("Schedule", {"spec.target.agent": Ref("Agent", "a1")}),
        ("Secret", {}),
        ("Knowledge", {}),
        ("Namespace", {}),
        ("Session", {}),
    ],
)
def test_references_are_found_with_their_fields(kind: str, expected: dict[str, Ref]) -> None:
    found = model(kind)
    assert {path_text(path): ref for path, ref in places(found)} == expected
    assert refs(found) == tuple(sorted(set(expected.values())))


def test_a_kind_refers_only_to_kinds_before_it_so_that_no_circle_can_be_made() -> None:
    order = {kind: at for at, kind in enumerate(KINDS)}
    edges = [(kind, ref.kind) for kind in KINDS for ref in refs(model(kind))]
    assert len(set(edges)) == 10
    assert all(order[target] < order[kind] for kind, target in edges)


def test_namespaces_lie_within_each_other_by_segment() -> None:
    assert lineage("acme:eu:de") == ("acme:eu:de", "acme:eu", "acme")
    assert lineage("acme") == ("acme",)
    assert candidates("acme:eu", Ref("Knowledge", "k")) == (("acme:eu", "Knowledge", "k"), ("acme", "Knowledge", "k"))
    assert candidates("acme:eu", Ref("Secret", "s")) == (("acme:eu", "Secret", "s"),)
