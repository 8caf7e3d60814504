"""Agents follow their templates: in their own namespace, below it, and whoever writes at the same moment."""

from __future__ import annotations

import pytest

from support.manifestworld import Lost, World, actions
from talon.domain.errors import Conflict
from talon.domain.resources import Ref
from talon.manifest.state import SameUsers


def template(namespace: str, prompt: str, name: str = "t") -> str:
    return f"""\
apiVersion: talon.dev/v1alpha1
kind: AgentTemplate
metadata: {{name: {name}, namespace: "{namespace}"}}
definition:
  systemPrompt: {prompt}
  modelPolicy: {{profiles: [{{name: p, model: {{provider: x, name: y}}}}]}}
---
"""


def agent(namespace: str, name: str = "a", of: str = "t", extra: str = "") -> str:
    return f"""\
apiVersion: talon.dev/v1alpha1
kind: Agent
metadata: {{name: {name}, namespace: "{namespace}"}}
spec: {{templateRef: {of}{extra}}}
---
"""


def world_of(*texts: str) -> World:
    world = World()
    for text in texts:
        world.apply(text)
    return world


def prompt(world: World, namespace: str, name: str = "a") -> str:
    return world.effective(namespace, name).system_prompt


def test_an_agent_is_made_from_the_nearest_template_of_that_name() -> None:
    world = world_of(template("acme", "far") + template("acme:eu", "near"), agent("acme:eu:de") + agent("acme:us") + agent("acme"))
    assert [prompt(world, one) for one in ("acme:eu:de", "acme:us", "acme")] == ["near", "far", "far"]


def test_namespaces_are_compared_by_segment_and_siblings_see_nothing() -> None:
    world = world_of(template("acme", "x"))
    assert "no template of that name in namespace acmeinc" in world.errors(agent("acmeinc"))["spec.templateRef"]
    world = world_of(template("acme:eu", "x"))
    assert "no template of that name in namespace acme" in world.errors(agent("acme"))["spec.templateRef"]
    assert "no template of that name in namespace acme:us" in world.errors(agent("acme:us"))["spec.templateRef"]


def test_a_changed_template_changes_the_agents_below_it_unless_another_is_nearer() -> None:
    world = world_of(template("acme", "far") + template("acme:eu", "near"), agent("acme:eu") + agent("acme:us"))
    plan = world.apply(template("acme", "farther"))
    assert actions(plan) == [("AgentTemplate t", "changed"), ("Agent a", "changed")]
    assert (prompt(world, "acme:us"), prompt(world, "acme:eu")) == ("farther", "near")
    assert world.revisions == {("acme:us", "Agent", "a"): 2, ("acme:eu", "Agent", "a"): 1}


def test_a_template_that_comes_to_stand_nearer_changes_those_below_it() -> None:
    world = world_of(template("acme", "far"), agent("acme:eu:de") + agent("acme:us"))
    world.apply(template("acme:eu", "near"))
    assert (prompt(world, "acme:eu:de"), prompt(world, "acme:us")) == ("near", "far")


def test_a_nearer_template_that_would_break_an_agent_is_refused() -> None:
    world = world_of(template("acme", "far"), agent("acme:eu"))
    broken = template("acme:eu", "near").split("  modelPolicy")[0]
    assert "Agent acme:eu/a uses this template and would break" in world.errors(broken)["definition"]


def test_a_namespace_is_made_with_those_that_it_lies_in() -> None:
    plan = World().plan(template("acme:eu:de", "x"))
    assert [(put.kind, put.name) for put in plan.puts] == [
        ("Namespace", "acme"), ("Namespace", "acme:eu"), ("Namespace", "acme:eu:de"), ("AgentTemplate", "t"),
    ]  # fmt: skip


def test_an_unchanged_template_does_not_ask_for_its_agents() -> None:
    world = world_of(template("acme", "x"), *(agent("acme", f"a{number}") for number in range(5)))
    assert world.plan(template("acme", "x")).empty
    assert [need.users for need in world.asked] == [()]
    world.plan(template("acme", "other"))
    assert [need.users for need in world.asked if need.users] == [(("acme", Ref("AgentTemplate", "t")),)]


def test_what_a_template_changes_is_guarded_by_its_users() -> None:
    world = world_of(template("acme", "x"), agent("acme"))
    plan = world.plan(template("acme", "other"))
    assert plan.same_users == (SameUsers("acme", Ref("AgentTemplate", "t"), (("acme", "Agent", "a", 1),)),)


FIRST = template("acme", "far") + agent("acme:eu")
RACES = {
    "a template changes while an agent is made from it": (template("acme", "far"), template("acme", "new"), agent("acme:eu")),
    "a template changes while its agent does": (FIRST, template("acme", "new"), agent("acme:eu", extra=", systemPrompt: own")),
    "a nearer one is made while the farther changes": (FIRST, template("acme:eu", "near"), template("acme", "new")),
    "a nearer one is made while an agent is": (template("acme", "far"), template("acme:eu", "near"), agent("acme:eu")),
    "the farther changes while a nearer one is made": (FIRST, template("acme", "new"), template("acme:eu", "near")),
    "two change the same template": (FIRST, template("acme", "one"), template("acme", "two")),
    "two make the same agent": (template("acme", "far"), agent("acme:eu"), agent("acme:eu", extra=", systemPrompt: own")),
}  # fmt: skip


@pytest.mark.parametrize("turned", [False, True], ids=["", "turned round"])
@pytest.mark.parametrize("race", RACES)
def test_two_who_write_at_the_same_moment_end_as_one_after_the_other(race: str, turned: bool) -> None:
    first, one, other = RACES[race]
    if turned:
        one, other = other, one
    world, calm = world_of(first), world_of(first, one, other)
    early, late = world.plan(one), world.plan(other)
    world.write(early)
    try:
        world.write(late)
    except Lost:
        world.apply(other)
    assert {who: (row.body, row.digest) for who, row in world.rows.items()} == {
        who: (row.body, row.digest) for who, row in calm.rows.items()
    }


def test_what_is_being_deleted_takes_nothing_new() -> None:
    world = world_of(FIRST)
    world.mark(("acme:eu", "Agent", "a"))
    with pytest.raises(Conflict, match="terminating: document 1, line 3: a is being deleted") as refused:
        world.plan(agent("acme:eu"))
    assert [one.field for one in refused.value.errors] == ["metadata.name"]
    with pytest.raises(Conflict, match="terminating"):
        world.plan('id: s\nagent: a\nns: "acme:eu"\n')
    assert actions(world.plan(template("acme", "new"))) == [("AgentTemplate t", "changed")]
    world.mark(("", "Namespace", "acme"))
    for text in (
        agent("acme:us"),
        template("acme", "y"),
        "kind: Namespace\napiVersion: talon.dev/v1alpha1\nmetadata: {name: 'acme:b'}",
    ):
        with pytest.raises(Conflict, match="terminating"):
            world.plan(text)
