"""What commands do with manifests in their own hands: merging two changes, applying told changes, drawing, writing files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talon.cli import export
from talon.cli.errors import WrongUse
from talon.cli.graph import Graph, dot, mermaid, tree
from talon.cli.kinds import KINDS, kind_and_name, kind_of, resource_of
from talon.cli.merge import merge
from talon.cli.objects import STAMPS, changed, path_of_field, writable
from talon.cli.output import as_yaml
from talon.cli.unified import unified
from talon.manifest import diff, metadata
from talon.manifest.document import path_text
from talon.manifest.kinds import KINDS as MANIFEST_KINDS
from talon.manifest.parse import parse

BASE = {"spec": {"a": 1, "b": {"c": 2, "d": 3}, "list": [1, 2]}, "metadata": {"labels": {"x": "1"}}}


def test_changes_of_different_fields_become_one() -> None:
    mine = {"spec": {"a": 9, "b": {"c": 2}, "list": [1, 2]}, "metadata": {"labels": {"x": "1", "y": "2"}}}
    theirs = {"spec": {"a": 1, "b": {"c": 7, "d": 3}, "list": [1, 2, 3]}, "metadata": {}}
    merged, clashes = merge(BASE, mine, theirs)
    assert merged["spec"] == {"a": 9, "b": {"c": 7}, "list": [1, 2, 3]}
    assert [clash.field for clash in clashes] == ["metadata.labels"]


def test_the_same_field_changed_by_both_is_named_with_both_values_and_mine_is_taken() -> None:
    mine = {**BASE, "spec": {**BASE["spec"], "a": 5}}
    theirs = {**BASE, "spec": {**BASE["spec"], "a": 6}}
    merged, clashes = merge(BASE, mine, theirs)
    assert merged["spec"]["a"] == 5
    assert [(one.field, one.mine, one.theirs) for one in clashes] == [("spec.a", "5", "6")]
    assert merge(BASE, mine, mine) == (mine, []), "what both made alike is no clash"


def test_a_field_that_one_takes_away_and_the_other_changes_is_a_clash() -> None:
    merged, clashes = merge({"a": 1}, {}, {"a": 2})
    assert (merged, [(one.mine, one.theirs) for one in clashes]) == ({}, [("absent", "2")])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('ab."[]', max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1, max_size=2), inner, max_size=3),
    max_leaves=12,
)


@given(VALUES, VALUES, VALUES)
def test_merging_keeps_all_of_mine_and_what_only_one_changed_never_clashes(base: Any, mine: Any, theirs: Any) -> None:
    assert merge(base, mine, base) == (mine, [])
    assert merge(base, base, theirs) == (theirs, [])
    again, clashes = merge(base, mine, theirs)
    assert merge(base, again, theirs)[0] == again, "merging what was merged changes nothing"
    assert len({clash.field for clash in clashes}) == len(clashes)


OBJECTS = st.dictionaries(st.sampled_from(["spec", "a", "talon.dev/x", "b-c"]), VALUES, max_size=4)


@given(OBJECTS, OBJECTS)
def test_told_changes_lead_from_the_old_manifest_to_the_new_one(before: Any, after: Any) -> None:
    told = [
        {"field": one.field}
        | {key: value for key in ("before", "after") if (value := getattr(one, key)) is not diff.FieldChange("").before}
        for one in diff.changes(before, after)
    ]
    assert diff.same(changed(before, told), after)


@given(st.lists(st.integers(0, 12) | st.text("ab-_./", min_size=1, max_size=5), min_size=1, max_size=4))
def test_a_fields_path_is_read_as_it_was_written(path: list[str | int]) -> None:
    assert path_of_field(path_text(tuple(path))) == tuple(path)


def test_only_what_people_write_is_writable() -> None:
    assert set(metadata.STAMPS) == STAMPS
    item = {"kind": "Agent", "metadata": {"name": "a", "uid": "u", "generation": 1}, "spec": {}, "status": {"revision": 1}}
    assert writable(item) == {"kind": "Agent", "metadata": {"name": "a"}, "spec": {}}


def test_every_kind_of_manifest_has_its_names() -> None:
    assert {kind.manifest for kind in KINDS if kind.manifest} == set(MANIFEST_KINDS)
    for name in ("McpServer", "mcp-servers", "mcpservers", "mcp"):
        assert kind_of(name).manifest == "McpServer"
    assert kind_and_name("agent/a", None)[1] == "a"
    assert resource_of("session", "a/s", "shown")[1] == ["a", "s"]
    for wrong in (("session", "a"), ("agent", None), ("revision", "a/1"), ("agent", "a/b")):
        with pytest.raises(WrongUse):
            resource_of(*wrong, "shown")


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
AMBIGUOUS = st.sampled_from(["no", "1e3", "0o17", "1_000", "2026-01-01", "~"])


@given(st.dictionaries(TEXTS, VALUES | TEXTS | AMBIGUOUS))
def test_yaml_that_is_shown_or_edited_reads_back_as_it_was(data: dict[str, Any]) -> None:
    (document,) = parse(as_yaml(data).encode(), "yaml")
    assert (document.data, document.problems) == (data, ())


def test_a_unified_diff_has_no_lines_without_a_difference() -> None:
    assert unified("a\n", "a\n", "x", "y") == ""
    assert unified("a\nb\n", "a\nc\n", "x", "y") == "--- x\n+++ y\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
    assert unified("", "a\n", "/dev/null", "y").splitlines()[-1] == "+a"


def key(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"namespace": "acme", "kind": kind, "name": name, **more}


BODY = {
    "nodes": [
        key("Agent", "bot"),
        key("Schedule", "daily"),
        key("AgentTemplate", "base"),
        {"namespace": "top", "kind": "McpServer", "name": "crm"},
        key("Secret", "token", missing=True),
        key("McpServer", "tools", toolset=True),
    ],
    "edges": [
        {"from": key("Agent", "bot"), "to": key("AgentTemplate", "base")},
        {"from": key("Schedule", "daily"), "to": key("Agent", "bot")},
        {"from": key("AgentTemplate", "base"), "to": {"namespace": "top", "kind": "McpServer", "name": "crm"}},
        {"from": key("Agent", "bot"), "to": key("Secret", "token")},
        {"from": key("Agent", "bot"), "to": key("McpServer", "tools")},
    ],
}


def test_a_graph_is_a_tree_from_those_whom_nobody_uses() -> None:
    assert tree(Graph.of("acme", BODY)).splitlines() == [
        "acme",
        "└── Schedule daily",
        "    └── Agent bot",
        "        ├── AgentTemplate base",
        "        │   └── McpServer top/crm",
        "        ├── Secret token (missing)",
        "        └── toolset tools",
    ]


def test_a_graph_in_the_forms_of_drawing_programs() -> None:
    graph = Graph.of("acme", BODY)
    assert 'n1["Agent bot"]' in mermaid(graph)
    assert "  n2 --> n1" in mermaid(graph).splitlines()
    assert "  class n5 missing" in mermaid(graph).splitlines()
    assert '  n5 [label="Secret token", style=dashed];' in dot(graph).splitlines()
    assert "  n2 -> n1;" in dot(graph).splitlines()


FILES = {"namespace.yaml": b"kind: Namespace\n", "agents/a.yaml": b"kind: Agent\n"}


def below(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_an_export_replaces_an_earlier_one_and_leaves_other_files(tmp_path: Path) -> None:
    target = tmp_path / "acme"
    export.write_files(target, {**FILES, "agents/gone.yaml": b"x", "templates/t.yaml": b"x"})
    (target / ".git").mkdir()
    (target / ".git" / "HEAD").write_bytes(b"mine")
    export.write_files(target, FILES)
    assert below(target) == {**FILES, ".git/HEAD": b"mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["acme"], "nothing is left beside it"


def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "acme"
    export.write_files(target, {**FILES, "templates/t.yaml": b"x"})
    before = below(target)
    real = Path.replace

    def replace(self: Path, other: Path) -> Path:
        if self.name == "templates":
            raise OSError(28, "No space left on device", str(self))
        return real(self, other)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OSError, match="No space left"):
        export.write_files(target, {"namespace.yaml": b"new", "agents/a.yaml": b"new"})
    assert below(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["acme"]


def test_a_directory_with_something_in_it_is_not_exported_to_without_force(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(WrongUse, match="is not empty"):
        export.check_target(tmp_path, False)
    export.check_target(tmp_path, True)
    with pytest.raises(WrongUse, match="is no directory"):
        export.check_target(tmp_path / "mine", True)
