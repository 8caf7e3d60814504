"""Applying to both stores: writers that meet, the way back to a revision, secrets, and what it costs."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.stores import of_param
from support.vaults import vault_on
from talon.cli.system import SystemIds
from talon.domain.errors import Conflict, Invalid, NotFound
from talon.domain.resources import Ref, candidates
from talon.gateway.deleting import Deletions
from talon.gateway.pruning import Pruning
from talon.gateway.resources import Resources
from talon.manifest.effective import decode
from talon.manifest.kinds import AgentDoc, TemplateDoc
from talon.manifest.parse import parse
from talon.manifest.read import Reading, read
from talon.manifest.resolve import Resolved, load, resolve, template_of
from talon.manifest.selectors import parse_selector
from talon.manifest.undo import ROLLED_BACK_TO
from talon.store.protocols import Store
from talon.store.resources import ResourceRow

IDS = SystemIds()
AGENTS = [("acme", "a"), ("acme:eu", "a"), ("acme:eu", "b"), ("acme:eu:de", "a")]
TEMPLATES = [("acme", "t"), ("acme:eu", "t"), ("acme", "u")]


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with of_param(request, tmp_path) as opened:
        yield opened


def template(namespace: str, name: str, prompt: str) -> str:
    return f"""\
apiVersion: talon.dev/v1alpha1
kind: AgentTemplate
metadata: {{name: {name}, namespace: "{namespace}"}}
definition: {{systemPrompt: "{prompt}", modelPolicy: {{profiles: [{{name: p, model: {{provider: x, name: y}}}}]}}}}
---
"""


def agent(namespace: str, name: str, of: str, extra: str = "", labels: str = "{}") -> str:
    return f"""\
apiVersion: talon.dev/v1alpha1
kind: Agent
metadata: {{name: {name}, namespace: "{namespace}", labels: {labels}}}
spec: {{templateRef: {of}{extra}}}
---
"""


def reading(text: str) -> Reading:
    return read(parse(text.encode()))


@dataclass
class Writer:
    """One gateway's hand on the store."""

    store: Store
    resources: Resources = field(init=False)
    deletions: Deletions = field(init=False)

    def __post_init__(self) -> None:
        self.resources = Resources(self.store, IDS, vault_on(self.store))
        self.deletions = Deletions(self.store, lambda _: None)

    async def apply(self, text: str) -> None:
        await self.resources.apply(reading(text))

    async def delete(self, namespace: str, kind: str, name: str) -> None:
        async def find() -> list[ResourceRow]:
            row = await self.store.get_resource(namespace, kind, name)
            return [row] if row else []

        await self.deletions.delete(find, lambda _: None, cascade=False)

    async def row(self, namespace: str, kind: str, name: str) -> ResourceRow:
        found = await self.store.get_resource(namespace, kind, name)
        assert found is not None
        return found

    async def prompt(self, namespace: str, name: str) -> str:
        revision = await self.resources.revision(await self.row(namespace, "Agent", name))
        assert revision is not None
        return decode(revision.effective).system_prompt


async def test_writers_that_meet_leave_no_agent_behind_its_template(store: Store) -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    await Writer(store).apply("".join(template(*one, "start") for one in TEMPLATES) + "".join(agent(*one, "t") for one in AGENTS))
    done: Counter[str] = Counter()

    async def writer(number: int) -> None:
        chance, hand = random.Random(seed + number), Writer(store)
        for turn in range(12):
            act = chance.choice(["template", "template", "agent", "agent", "delete template", "delete agent"])
            try:
                if act == "template":
                    await hand.apply(template(*chance.choice(TEMPLATES), f"{number}.{turn}"))
                elif act == "agent":
                    await hand.apply(agent(*chance.choice(AGENTS), chance.choice("tu"), f", limits: {{tokens_max: {turn}}}"))
                else:
                    namespace, name = chance.choice(TEMPLATES if act == "delete template" else AGENTS)
                    await hand.delete(namespace, "AgentTemplate" if act == "delete template" else "Agent", name)
                done[act] += 1
            except (Invalid, Conflict):  # its template is gone, it is in use, or the others were always first
                done[f"refused: {act}"] += 1

    await asyncio.gather(*(writer(number) for number in range(4)))
    print(dict(done))
    assert done["template"] > 3
    assert done["agent"] > 3
    resources = Writer(store).resources
    for namespace, name in AGENTS:
        row = await store.get_resource(namespace, "Agent", name)
        if row is not None:
            await _stands_on_its_template(store, resources, row)


async def _stands_on_its_template(store: Store, resources: Resources, row: ResourceRow) -> None:
    model = load(row.body)
    assert isinstance(model, AgentDoc)
    for place in candidates(row.namespace, Ref("AgentTemplate", template_of(model))):
        found = await store.get_resource(*place)
        if found is None:
            continue
        base = load(found.body)
        assert isinstance(base, TemplateDoc)
        resolved, revision = resolve(model, row.namespace, base.definition), await resources.revision(row)
        assert isinstance(resolved, Resolved)
        assert revision is not None
        assert revision.digest == resolved.digest, f"{row.namespace}/{row.name} and {place}"
        return
    raise AssertionError(f"{row.namespace}/{row.name} has no template")


async def test_an_agent_goes_back_to_the_manifest_it_had(store: Store) -> None:
    hand = Writer(store)
    await hand.apply(template("acme", "t", "one") + agent("acme", "a", "t"))
    await hand.apply(agent("acme", "a", "t", ", systemPrompt: changed"))
    assert await hand.prompt("acme", "a") == "changed"
    row = await hand.resources.rollback(await hand.row("acme", "Agent", "a"))
    assert (row.revision, await hand.prompt("acme", "a")) == (3, "one")
    assert msgspec.json.decode(row.body)["spec"] == {"templateRef": "t"}
    newest = await store.get_revision("acme", "a", 3)
    assert newest is not None
    assert newest.cause == "rolled back to revision 1"
    again = await hand.resources.rollback(row)
    assert (again.revision, await hand.prompt("acme", "a")) == (4, "changed")


async def test_where_the_template_changed_the_definition_is_written_out(store: Store) -> None:
    hand = Writer(store)
    await hand.apply(template("acme", "t", "one") + agent("acme", "a", "t"))
    await hand.apply(template("acme", "t", "two"))
    assert await hand.prompt("acme", "a") == "two"
    row = await hand.resources.rollback(await hand.row("acme", "Agent", "a"), 1)
    assert await hand.prompt("acme", "a") == "one"
    body = msgspec.json.decode(row.body)
    assert body["metadata"]["annotations"] == {ROLLED_BACK_TO: "1"}
    assert "templateRef" not in body["spec"]
    await hand.apply(template("acme", "t", "three"))
    assert await hand.prompt("acme", "a") == "one"
    for revision in (0, 9, 2**40):
        with pytest.raises(NotFound, match="revision_not_found"):
            await hand.resources.rollback(row, revision)


async def test_a_secret_is_sealed_and_changed_only_by_another_value(store: Store) -> None:
    hand, vault = Writer(store), vault_on(store)
    text = "apiVersion: talon.dev/v1alpha1\nkind: Secret\nmetadata: {name: key, namespace: acme}\nspec: {value: sw0rdfish}\n"
    await hand.apply(text)
    first = await hand.row("acme", "Secret", "key")
    assert b"sw0rdfish" not in first.body
    assert await vault.read("acme", "key", "test", "test") == "sw0rdfish"
    await hand.apply(text)
    await hand.apply(text.replace("spec: {value: sw0rdfish}\n", ""))
    assert await hand.row("acme", "Secret", "key") == first
    await hand.apply(text.replace("sw0rdfish", "another"))
    assert await vault.read("acme", "key", "test", "test") == "another"
    assert (await hand.row("acme", "Secret", "key")).generation == 2


async def test_what_is_pruned_goes_with_the_apply_or_neither_does(store: Store) -> None:
    hand = Writer(store)
    labels = "{app: x}"
    await hand.apply(template("acme", "t", "one") + agent("acme", "a", "t", labels=labels) + agent("acme", "b", "t", labels=labels))
    selector = parse_selector("app=x")
    kept = reading(agent("acme", "a", "t", ", systemPrompt: new", labels=labels))
    prune = Pruning(store, hand.deletions).of(kept, selector)
    planned = await hand.resources.plan(kept, prune)
    assert [(one.name, one.action) for one in planned.results] == [("a", "changed"), ("b", "deleted")]
    assert await hand.prompt("acme", "b") == "one"
    await hand.resources.apply(kept, prune=prune)
    assert await store.get_resource("acme", "Agent", "b") is None
    assert await hand.prompt("acme", "a") == "new"


class Counted:
    """A store that counts what is asked of it."""

    def __init__(self, store: Store) -> None:
        self._store, self.calls = store, Counter[str]()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)

        async def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            return await found(*args, **kwargs)

        return counted


async def test_a_hundred_agents_are_applied_with_as_many_questions_as_one(store: Store) -> None:
    asked: list[Counter[str]] = []
    for count in (1, 100):
        text = template("acme", f"t{count}", "x") + "".join(agent("acme", f"a{count}-{at}", f"t{count}") for at in range(count))
        counted: Any = Counted(store)
        resources = Resources(counted, IDS, vault_on(store))
        for one in (
            text,
            text.replace('systemPrompt: "x"', 'systemPrompt: "y"'),
            text.replace('systemPrompt: "x"', 'systemPrompt: "y"'),
        ):
            await resources.apply(reading(one))
        asked.append(counted.calls)
    assert asked[0] == asked[1]
    assert asked[0]["change"] == 2
    assert sum(asked[0].values()) < 25
