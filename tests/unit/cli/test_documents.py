"""Manifests from files: which files, and where a mistake stands."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from aiohttp import web

from support.tinyhttp import serving
from talon.cli.apply import apply
from talon.cli.client import Client
from talon.cli.documents import WARNINGS_SHOWN, collect, placed, warn
from talon.cli.errors import WrongUse
from talon.domain import errors as err
from talon.manifest.parse import DOCUMENTS_MAX

ONE = "kind: Agent\nmetadata:\n  name: one\n---\nkind: Namespace\nmetadata: {name: two}\n"


def test_a_directory_is_read_with_everything_below_it_but_the_programs_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "b" / "x.yml").write_text(ONE)
    (tmp_path / "a.json").write_text('[{"kind": "Agent"}, {"kind": "Session"}]')
    for other in ("talon.yaml", ".hidden/x.yaml", "notes.txt"):
        (tmp_path / other).write_text("no: manifest")
    found = collect([str(tmp_path)])
    assert [(Path(s.file).name, s.document.index) for s in found] == [("a.json", 1), ("a.json", 2), ("x.yml", 1), ("x.yml", 2)]
    assert "talon.yaml: left out" in capsys.readouterr().err


def test_standard_input_is_read_for_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ONE.encode())))
    assert [source.file for source in collect(["-"])] == ["standard input", "standard input"]


def test_every_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "twice.yaml").write_text("kind: Agent\nkind: Agent\n")
    with pytest.raises(WrongUse) as caught:
        collect([str(tmp_path), str(tmp_path / "gone.yaml")])
    text = "\n".join(caught.value.lines)
    assert "broken.yaml: document 1, line 2" in text
    assert "twice.yaml line 1: kind: is given twice, in line 1 and line 2" in text
    assert "gone.yaml: cannot be read: No such file" in text


def test_a_directory_without_manifests_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="no manifest in"):
        collect([str(tmp_path)])


def test_a_field_is_placed_at_its_line_or_that_of_the_nearest_thing_around_it(tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text(ONE)
    first, second = collect([str(tmp_path / "x.yml")])
    assert first.place("metadata.name").endswith("x.yml line 3")
    assert first.place("metadata.labels.x").endswith("x.yml line 2")
    assert second.place("").endswith("x.yml line 5")


async def test_the_servers_complaints_are_told_at_file_and_line(tmp_path: Path) -> None:
    sent: list[object] = []

    async def handler(request: web.Request) -> web.Response:
        sent.append(await request.json())
        complaint = {"field": "metadata.name", "message": "document 2: is no name"}
        twice = {"field": "", "message": "document 2, line 2: Agent acme/a is in document 1, line 1 already; keep one of them"}
        body = {"code": "invalid", "detail": "wrong", "errors": [complaint, twice, {"field": "x", "message": "by itself"}]}
        return web.json_response(body, status=422)

    (tmp_path / "a.yaml").write_text("kind: Agent\nmetadata: {name: a}\n")
    (tmp_path / "b.yaml").write_text("# a comment\nkind: Agent\nmetadata:\n  name: B\n")
    async with serving(handler) as tiny, Client(tiny.url) as client:
        with pytest.raises(err.Invalid) as caught:
            await apply(client, collect([str(tmp_path)]), "acme", {"dry_run": "true"})
    assert caught.value.detail == "it would be refused; what is wrong:", "nobody wanted to apply it"
    assert [f.message for f in caught.value.errors] == [
        f"{tmp_path}/b.yaml line 4: metadata.name: is no name",
        f"{tmp_path}/b.yaml line 2: Agent acme/a is in {tmp_path}/a.yaml line 1 already; keep one of them",
        "x: by itself",
    ]
    assert tiny.requests[0][1] == "/v1/apply?dry_run=true"
    assert sent == [[{"kind": "Agent", "metadata": {"namespace": "acme", "name": name}} for name in "aB"]]


def test_of_many_warnings_the_first_are_told_and_how_many_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    warn([], [{"field": f"f{number}", "message": "m"} for number in range(WARNINGS_SHOWN + 1)])
    told = capsys.readouterr().err.splitlines()
    assert (len(told), told[0], told[-1]) == (
        WARNINGS_SHOWN + 1,
        "warning: f0: m",
        "and 1 more warning; apply -o json has them all",
    )


async def test_more_than_one_request_holds_goes_in_parts_what_others_refer_to_first(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    async def handler(request: web.Request) -> web.Response:
        names = [f"{one['kind']} {one['metadata']['name']}" for one in await request.json()]
        asked.append(names)
        if "Agent refused" in names:
            number = names.index("Agent refused") + 1
            complaint = {"field": "metadata.name", "message": f"document {number}: is refused"}
            return web.json_response({"code": "invalid", "detail": "wrong", "errors": [complaint]}, status=422)
        items = [{"document": at, "kind": name.split()[0], "name": name} for at, name in enumerate(names, 1)]
        warnings = [{"field": "", "message": f"document {len(names)}: the last"}]
        return web.json_response({"items": [*items, {"document": 0, "kind": "Agent", "name": "x"}], "warnings": warnings})

    agents = [f"---\nkind: Agent\nmetadata: {{name: a{number}}}\n" for number in range(DOCUMENTS_MAX)]
    (tmp_path / "all.yaml").write_text("".join(agents) + "---\nkind: AgentTemplate\nmetadata: {name: t}\n" + "---\n")
    async with serving(handler) as tiny, Client(tiny.url) as client:
        answer = await apply(client, sources := collect([str(tmp_path)]), "acme")
        assert [names[0] for names in asked] == ["AgentTemplate t", f"Agent a{DOCUMENTS_MAX - 1}"]
        assert [item["document"] for item in answer["items"]] == [DOCUMENTS_MAX + 1, *range(1, DOCUMENTS_MAX), 0, DOCUMENTS_MAX, 0]
        assert placed(sources, answer["warnings"][-1]) == f"{tmp_path}/all.yaml line {3 * DOCUMENTS_MAX - 1}: the last"
        with pytest.raises(WrongUse, match="prune needs all of them in one"):
            await apply(client, sources, "acme", {"prune": "true", "label_selector": "a=b"})
        assert len(asked) == 2, "what is not in the first part would have been deleted"
        (tmp_path / "z.yaml").write_text("kind: Agent\nmetadata: {name: refused}\n")
        with pytest.raises(
            err.Invalid, match=f"{DOCUMENTS_MAX} of {DOCUMENTS_MAX + 2} manifests were applied, and nothing after"
        ) as no:
            await apply(client, collect([str(tmp_path)]), "acme")
    assert [one.message for one in no.value.errors] == [f"{tmp_path}/z.yaml line 2: metadata.name: is refused"]


async def test_the_namespace_goes_to_documents_that_name_none(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: list[object] = []

    async def handler(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response({"items": []})

    text = (
        "kind: Agent\nmetadata: {name: a, namespace: own}\n---\nkind: Namespace\nmetadata: {name: n}\n"
        "---\nid: s\nagent: a\n---\nid: t\nagent: a\nns: own\n---\n- no manifest\n---\nkind: Agent\n"
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    sources = collect(["-"])
    async with serving(handler) as tiny, Client(tiny.url) as client:
        await apply(client, sources, "acme")
    assert bodies == [
        [
            {"kind": "Agent", "metadata": {"name": "a", "namespace": "own"}},
            {"kind": "Namespace", "metadata": {"name": "n"}},
            {"id": "s", "agent": "a", "ns": "acme"},
            {"id": "t", "agent": "a", "ns": "own"},
            ["no manifest"],
            {"kind": "Agent"},
        ]
    ]
