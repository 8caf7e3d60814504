"""Applying secrets, servers, bindings, knowledge and schedules; and what their conditions say."""

from __future__ import annotations

import msgspec
import pytest

from support.manifests import ALL, SCHEDULE
from support.manifestworld import World, actions
from talon.domain.errors import Invalid
from talon.domain.resources import Identity, Ref
from talon.manifest.catalogue import Catalogue
from talon.manifest.conditions import Condition, conditions, wanted
from talon.manifest.resolve import load

HEAD = "apiVersion: talon.dev/v1alpha1\nkind: {}\nmetadata: {{name: {}, namespace: acme}}\n"
SECRET = HEAD.format("Secret", "key") + "spec: {value: sw0rdfish, description: for tests}\n---\n"
SERVER = HEAD.format("McpServer", "stripe-readonly") + (
    "spec:\n  transport: http\n  url: https://mcp.example.com\n  headers: {Authorization: {secretRef: key}, X-Team: acme}\n---\n"
)
BINDING = HEAD.format("McpBinding", "support") + (
    "spec: {server: stripe-readonly, agents: [customer-support], auth: {kind: bearer, secretRef: key}}\n---\n"
)
KNOWLEDGE = HEAD.format("Knowledge", "policies") + "spec: {documents: [{name: refunds.md, content: Never.}]}\n---\n"
SERVED = Catalogue({"stripe-readonly": (), "hubspot-readonly": ()}, ("openai",))


def conditions_of(world: World, identity: Identity, catalogue: Catalogue | None = SERVED) -> dict[str, Condition]:
    row = world.rows[identity]
    model = load(row.body)
    found = [one for one in wanted(model, row.namespace, row.effective) if one in world.rows]
    given = identity in world.values
    now = conditions(model, row.namespace, found, catalogue, effective=row.effective, has_value=given)
    return {one.type: one for one in now}


def test_everything_can_be_applied_at_once_and_again_without_a_change() -> None:
    world = World(SERVED)
    every = "---\n".join((ALL, SCHEDULE, SECRET, SERVER, BINDING, KNOWLEDGE))
    plan = world.apply(every)
    assert [action for _, action in actions(plan)] == ["created"] * 9
    assert not [warn for warn in plan.warnings if "yet" in warn.message]
    again = world.plan(every)
    assert again.empty
    assert {action for _, action in actions(again)} == {"unchanged"}
    assert plan.refs["acme", "McpBinding", "support"] == (
        Ref("Agent", "customer-support"), Ref("McpServer", "stripe-readonly"), Ref("Secret", "key"),
    )  # fmt: skip


def test_what_does_not_exist_yet_is_a_warning_with_its_field() -> None:
    fields = {warn.field: warn.message for warn in World().plan(SERVER + BINDING + SCHEDULE).warnings}
    assert "no Secret 'key' in namespace acme yet" in fields["spec.headers.Authorization.secretRef"]
    assert "no Agent 'customer-support' in namespace acme yet" in fields["spec.agents[0]"]
    assert "no Agent 'customer-support' in namespace acme yet" in fields["spec.target.agent"]
    assert "spec.server" not in fields


def test_a_secret_is_changed_by_another_value_and_by_nothing_else() -> None:
    world = World()
    plan = world.apply(SECRET)
    (put,) = [one for one in plan.puts if one.kind == "Secret"]
    assert put.secret == "sw0rdfish"
    assert "sw0rdfish" not in repr(plan) + str(put.body)
    assert world.plan(SECRET).empty
    assert world.plan(SECRET.replace("value: sw0rdfish, ", "")).empty
    changed = world.plan(SECRET.replace("sw0rdfish", "another"))
    (result,) = changed.results
    assert [(change.field, change.after) for change in result.changes] == [("spec.value", "(a new value)")]
    assert changed.puts[0].body is not None
    kept = world.apply(SECRET.replace("value: sw0rdfish, description: for tests", "description: other"))
    assert (kept.puts[0].secret, world.values["acme", "Secret", "key"]) == (None, "sw0rdfish")


def test_labels_and_references_are_written_beside_the_body() -> None:
    plan = World().plan(SERVER.replace("namespace: acme", "namespace: acme, labels: {app: x}"))
    assert [(put.labels, put.refs) for put in plan.puts[1:]] == [({"app": "x"}, (Ref("Secret", "key"),))]


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [("McpServer", "stripe-readonly", SERVER), ("McpBinding", "support", BINDING), ("Schedule", "renewal-check", SCHEDULE)],
)
def test_a_dangling_reference_is_a_condition_until_it_is_there(kind: str, name: str, text: str) -> None:
    world = World()
    world.apply(text)
    identity = ("acme", kind, name)
    dangling = conditions_of(world, identity, None)["ReferencesResolved"]
    assert (dangling.status, dangling.reason) == ("False", "UnresolvedReference")
    world.apply("---\n".join((ALL, SECRET, SERVER)))
    found = conditions_of(world, identity, None)
    assert found["ReferencesResolved"].status == "True"
    active = ("True", "Active") if kind == "Schedule" else ("False", "NotImplemented")
    assert (found["Active"].status, found["Active"].reason) == active


def test_a_schedule_that_is_paused_or_cannot_be_fired_says_so() -> None:
    world = World()
    world.apply(SCHEDULE)
    row = world.rows["acme", "Schedule", "renewal-check"]
    failing = conditions(load(row.body), "acme", (), None, error="there is no agent")[1]
    assert (failing.status, failing.reason) == ("False", "CannotFire")
    assert "there is no agent" in failing.message
    world.apply(SCHEDULE.replace("enabled: true", "enabled: false"))
    assert conditions_of(world, ("acme", "Schedule", "renewal-check"))["Active"].reason == "Paused"


def test_a_schedule_that_is_over_says_so_and_may_be_changed_in_all_but_its_times() -> None:
    world = World()
    world.now_ms = 1_800_000_000_000  # in January 2027
    ending = SCHEDULE.replace("  kind: cron", '  until: "2027-01-20T00:00:00Z"\n  kind: cron')
    world.apply(ending)
    world.now_ms += 365 * 86_400_000
    over = conditions(load(world.rows["acme", "Schedule", "renewal-check"].body), "acme", (), None, over=True)[1]
    assert (over.status, over.reason) == ("False", "Over")
    world.apply(ending.replace("draft follow-ups", "write letters"))
    with pytest.raises(Invalid, match=r"spec\.until: .*never fires: that is over"):
        world.apply(ending.replace("1-5", "1-6"))
    with pytest.raises(Invalid, match="the first time would be 2028-01-17T14:00:00-08:00, after this"):
        world.apply(ending.replace('until: "2027-01-20', 'until: "2028-01-17'))


def test_places_in_a_schedules_message_are_features_of_its_agent_or_the_time() -> None:
    world = World(SERVED)
    world.apply(ALL)
    at = "    Review accounts renewing in the next 14 days"
    for place in ("{{ scheduled_at }}", "{{ customer_id }}", "\\{{ anything }}"):
        assert world.plan(SCHEDULE.replace(at, f"    {place}")).puts
    with pytest.raises(Invalid, match=r"spec\.inputMessage: .*names no declared feature; did you mean 'customer_id'"):
        world.plan(SCHEDULE.replace(at, "    {{ customer }}"))
    with pytest.raises(Invalid, match=r"spec\.inputMessage"):  # in whatever order they are applied
        World(SERVED).plan("---\n".join((SCHEDULE.replace(at, "    {{ customer }}"), ALL)))
    assert world.plan(SCHEDULE.replace(at, "    {{ customer }}").replace("enabled: true", "enabled: false")).puts


def test_a_secret_is_active_as_soon_as_it_has_a_value() -> None:
    world = World()
    world.apply(SECRET.replace("value: sw0rdfish, ", ""))
    identity = ("acme", "Secret", "key")
    assert conditions_of(world, identity)["Active"].reason == "NoValue"
    world.apply(SECRET)
    assert conditions_of(world, identity)["Active"].status == "True"


def test_an_agent_that_would_need_what_does_not_work_yet_is_not_ready_and_says_why() -> None:
    world = World(SERVED)
    world.apply(ALL)
    agent = ("acme", "Agent", "customer-support")
    assert {one.status for one in conditions_of(world, agent).values()} == {"True"}
    world.apply(KNOWLEDGE)
    with_knowledge = ALL.replace("templateRef: customer-support", "templateRef: customer-support\n  knowledgeRefs: [policies]")
    warned = {warn.field: warn.message for warn in world.apply(with_knowledge).warnings}
    assert "knowledgeRefs: Knowledge acme/policies: it is stored" in warned["spec.knowledgeRefs"]
    both = {warn.field: warn.message for warn in world.plan(with_knowledge.replace("[policies]", "[policies, gone]")).warnings}
    assert "no Knowledge gone in namespace acme" in both["spec.knowledgeRefs"], "what is missing is told beside what is not used"
    assert "Knowledge acme/policies: it is stored" in both["spec.knowledgeRefs"]
    found = conditions_of(world, agent)
    assert found["ReferencesResolved"].status == "True"
    assert (found["Ready"].status, found["Ready"].reason) == ("False", "NotImplemented")
    assert "Knowledge acme/policies" in found["Ready"].message


def test_a_server_is_found_as_a_toolset_or_as_a_resource_and_only_a_toolset_is_ready() -> None:
    world = World(SERVED)
    world.apply(ALL)
    agent = ("acme", "Agent", "customer-support")
    unserved = Catalogue({"hubspot-readonly": ()}, ("openai",))
    assert conditions_of(world, agent, unserved)["ReferencesResolved"].reason == "UnresolvedReference"
    world.apply(SERVER)
    stored = conditions_of(world, agent, unserved)
    assert stored["ReferencesResolved"].status == "True"
    assert (stored["Ready"].reason, "McpServer acme/stripe-readonly" in stored["Ready"].message) == ("NotImplemented", True)
    assert conditions_of(world, agent)["Ready"].status == "True"


def test_the_references_of_a_template_are_told_of_it_too() -> None:
    world = World()
    world.apply(ALL)
    template = ("acme", "AgentTemplate", "customer-support")
    assert conditions_of(world, template)["ReferencesResolved"].status == "True"
    assert conditions_of(world, template, None)["ReferencesResolved"].reason == "NoWorker"
    missing = conditions_of(world, template, Catalogue())["ReferencesResolved"]
    assert "McpServer hubspot-readonly, McpServer stripe-readonly" in missing.message


def test_what_lies_above_is_found_unless_it_is_a_secret() -> None:
    world = World()
    world.apply(SECRET + SERVER)
    world.apply(BINDING.replace("namespace: acme", 'namespace: "acme:eu"'))
    found = conditions_of(world, ("acme:eu", "McpBinding", "support"))["ReferencesResolved"]
    assert found.message == "Agent customer-support, Secret key: does not exist"


def test_bodies_are_kept_as_they_were_written() -> None:
    world = World()
    world.apply(SCHEDULE)
    body = msgspec.json.decode(world.rows["acme", "Schedule", "renewal-check"].body)
    assert list(body) == ["apiVersion", "kind", "metadata", "spec"]
    assert set(body["spec"]) == {"kind", "cron", "timezone", "target", "inputMessage", "enabled"}
