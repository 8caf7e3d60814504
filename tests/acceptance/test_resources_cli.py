"""Resources from the command line against the booted product: what a team that keeps them in Git does every day."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import stat
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from support.manifests import AGENT, SCHEDULE, SESSION, TEMPLATE
from support.product import Api, Product
from support.shell import Shell, free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")
CONFIG = "providers: {openai: {kind: scripted, script: script.yaml}}\ntools: {modules: [stripe_readonly, hubspot_readonly]}\n"
SCRIPT = "rules:\n  - when: {user: hang}\n    delay_ms: 60000\n    text: never\ndefault: {text: 'You said: {{ user }}'}\n"
TOOLS = '''"""A toolset."""

from talon.tools.python import tool


@tool(effect="read")
def NAME(name: str) -> str:
    """Find an account."""
    return name
'''
#: What the documents name and do not print: the servers of the template, a binding with its secret, knowledge.
ENVIRONMENT = """\
apiVersion: talon.dev/v1alpha1
kind: Knowledge
metadata: {name: renewals, namespace: acme}
spec: {documents: [{name: policy.md, content: Renew early.}]}
---
apiVersion: talon.dev/v1alpha1
kind: McpServer
metadata: {name: stripe-readonly, namespace: acme}
spec: {transport: http, url: "https://mcp.example.com/stripe"}
---
apiVersion: talon.dev/v1alpha1
kind: Secret
metadata: {name: stripe-token, namespace: acme}
spec: {value: sk-never-shown}
"""
BINDING = {
    "metadata": {"name": "stripe"},
    "spec": {"server": "stripe-readonly", "auth": {"kind": "bearer", "secretRef": "stripe-token"}},
}
BOT = """\
apiVersion: talon.dev/v1alpha1
kind: Agent
metadata:
  name: NAME
  labels: {app: bots}
definition:
  systemPrompt: Be brief.
  modelPolicy: {profiles: [{name: p, model: {provider: openai, name: m}}]}
"""


@dataclass
class Space(Shell):
    """A shell in a namespace of its own. What a test only needs or looks at goes over HTTP: that starts no process."""

    @property
    def path(self) -> str:
        return f"/v1/ns/{self.namespace}"

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """A request below the namespace that must succeed; -> its JSON."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with Api(self.url) as api:
            status, answer = await api.call(method, self.path + path, body, headers=named)
        assert status < 300, answer
        return answer

    async def apply(self, text: str) -> None:
        """Apply manifests that name the namespace `acme`, or `NAMESPACE`, to this one."""
        async with Api(self.url) as api:
            await api.apply(text.replace("acme", self.namespace).replace("NAMESPACE", self.namespace))

    async def bot(self, name: str, app: str = "bots") -> None:
        """Apply a bot."""
        await self.apply(
            BOT.replace("metadata:", "metadata:\n  namespace: NAMESPACE").replace("NAME\n", f"{name}\n").replace("bots", app)
        )

    async def patch(self, name: str, body: Any) -> Any:
        """Change an agent."""
        return await self.call("PATCH", f"/agents/{name}", body, Content_Type="application/merge-patch+json")

    async def agent(self, name: str = "a") -> Any:
        """An agent as it is."""
        return await self.call("GET", f"/agents/{name}")

    async def agents(self) -> list[str]:
        """The names of all."""
        return [one["metadata"]["name"] for one in (await self.call("GET", "/agents"))["items"]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def product(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Product]:
    directory = tmp_path_factory.mktemp("product")
    for name, text in (("talon.yaml", CONFIG), ("script.yaml", SCRIPT)):
        (directory / name).write_text(text)
    for name in ("stripe_readonly", "hubspot_readonly"):
        (directory / f"{name}.py").write_text(TOOLS.replace("NAME", f"find_in_{name}"))
    async with Product(directory) as started:
        yield started
        assert "Traceback" not in started.log, started.log


@pytest.fixture
def shell(product: Product, tmp_path: Path, request: pytest.FixtureRequest) -> Space:
    """In a namespace that no other test uses."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:60].strip("-")
    return Space(product.url, tmp_path, name)


async def test_everything_that_the_first_document_prints_works_over_the_command_line_and_http(
    product: Product, shell: Space
) -> None:
    for name, text in {"template": TEMPLATE, "agent": AGENT, "session": SESSION, "environment": ENVIRONMENT}.items():
        shell.write(f"acme/{name}.yaml", text)
    assert "(dry run)" in await shell.ok("apply", "-f", "acme", "--dry-run")
    applied = await shell.ok("apply", "-f", "acme")
    assert "Session acme/enterprise-renewals created" in applied
    async with Api(product.url) as api:
        # The gateway surface, as printed.
        ns = "/v1/ns/acme"
        assert [one["metadata"]["name"] for one in (await api.get(f"{ns}/agents"))["items"]] == ["customer-support"]
        yaml = {"Content-Type": "application/yaml"}
        _, schedule = await api.call("POST", f"{ns}/schedules", SCHEDULE, headers=yaml, expect=201)
        assert schedule["spec"]["target"]["sessionId"] == "enterprise-renewals"
        _, binding = await api.call("POST", "/v1/namespaces/acme/mcp-bindings", BINDING, expect=201)
        assert binding["metadata"]["namespace"] == "acme"
        sessions = f"{ns}/agents/customer-support/sessions"
        await api.call("POST", sessions, {"id": "another"}, expect=201)
        _, receipt = await api.call("POST", f"{sessions}/enterprise-renewals/message", {"content": "hello"}, expect=202)
        end = await api.end_of("acme/customer-support/enterprise-renewals", receipt["turn_id"])
        assert end["type"] == "turn.completed", end
        for plural in ("schedules", "mcp-bindings", "knowledge", "mcp-servers"):
            (item,) = (await api.get(f"{ns}/{plural}"))["items"]
            assert (await api.get(f"/v1/namespaces/acme/{plural}"))["items"] == [item]
            active = [one for one in item["status"]["conditions"] if one["type"] == "Active"]
            expected = ("True", "Active") if plural == "schedules" else ("False", "NotImplemented")
            assert [(one["status"], one["reason"]) for one in active] == [expected], item["kind"]
    # The same by the command line: the schedule in its printed form is what was posted.
    shell.write("acme/schedule.yaml", SCHEDULE)
    assert "Schedule acme/renewal-check unchanged" in await shell.ok("apply", "-f", "acme")
    listed = await shell.ok("get", "sched", "-n", "acme")
    for part in ("0 14 * * 1-5", "America/Los_Angeles", "customer-support", "enterprise-renewals", "T14:00:00-0"):
        assert part in listed
    (secret,) = await shell.data("get", "secrets", "-n", "acme")
    assert "sk-never-shown" not in json.dumps(secret)
    code, _, errors = await shell.run("delete", "template", "customer-support", "-n", "acme")
    assert code == 3
    assert "Agent/customer-support: refers to AgentTemplate customer-support" in errors
    drawn = await shell.ok("graph", "acme")
    assert "Secret stripe-token" in drawn.partition("McpBinding stripe\n")[2]
    assert "toolset hubspot-readonly" in drawn
    assert "(missing)" not in drawn, "the workers serve it"
    await shell.ok("delete", "namespace", "acme", "--cascade")
    code, out, errors = await shell.run("get", "agents", "-n", "acme")
    assert (code, out, "talon get namespaces" in errors) == (3, "", True), "what to do is said"


async def test_what_is_exported_deleted_and_applied_again_is_the_same(shell: Space) -> None:
    ns = shell.namespace
    await shell.apply("---\n".join((TEMPLATE, AGENT, SCHEDULE, ENVIRONMENT)))
    files = (await shell.ok("export", ns, "-o", "out")).splitlines()
    assert set(files) >= {"out/namespace.yaml", "out/agents/customer-support.yaml", "out/secrets/stripe-token.yaml"}
    assert len(files) == len(set(files)) == 7
    assert not any("sk-never-shown" in (shell.cwd / file).read_text() for file in files)
    code, _, errors = await shell.run("export", ns, "-o", "out")
    assert (code, "is not empty" in errors) == (2, True)
    before = await shell.ok("export", ns)
    assert await shell.ok("diff", "-f", "out") == "", "an export differs in nothing from what it was made of"
    await shell.ok("delete", "ns", ns, "--cascade", "--yes")
    assert "created" in await shell.ok("apply", "-f", "out")
    assert await shell.ok("export", ns) == before
    shutil.rmtree(shell.cwd / "out" / "schedules")
    shell.write("out/README.md", "mine")
    await shell.ok("export", ns, "-o", "out", "--force")
    assert (shell.cwd / "out" / "schedules" / "renewal-check.yaml").exists()
    assert (shell.cwd / "out" / "README.md").read_text() == "mine"


async def test_a_diff_is_what_an_apply_then_does_and_its_exit_code_tells(shell: Space) -> None:
    shell.write("m/a.yaml", BOT.replace("NAME", "a"))
    code, out, _ = await shell.run("diff", "-f", "m")
    assert code == 1
    assert out.startswith("--- /dev/null\n+++ Agent")
    assert "+  systemPrompt: Be brief." in out
    await shell.ok("apply", "-f", "m")
    assert await shell.run("diff", "-f", "m") == (0, "", "")
    shell.write("m/a.yaml", BOT.replace("NAME", "a").replace("brief", "polite").replace("labels: {app: bots}", "labels: {}"))
    code, out, _ = await shell.run("diff", "-f", "m")
    assert code == 1
    lines = out.splitlines()
    assert "-  systemPrompt: Be brief." in lines
    assert "+  systemPrompt: Be polite." in lines
    assert "-    app: bots" in lines
    code, out, errors = await shell.run("diff", "-f", "m", "--server", "http://127.0.0.1:9")
    assert (code, out) == (2, ""), "1 would say that something differs"
    shell.write("m/a.yaml", BOT.replace("NAME", "a") + "colour: red\n")
    code, out, errors = await shell.run("diff", "-f", "m")
    assert (code, out) == (3, "")
    assert "m/a.yaml line 9: colour" in errors
    assert (await shell.agent())["metadata"]["generation"] == 1


async def test_pruning_deletes_what_has_the_labels_and_is_in_no_manifest(shell: Space) -> None:
    for name, app in (("a", "bots"), ("b", "bots"), ("other", "more")):
        await shell.bot(name, app)
    shell.write("m/a.yaml", BOT.replace("NAME", "a"))
    prune = ("-f", "m", "--prune", "-l", "app=bots")
    code, out, _ = await shell.run("diff", *prune)
    assert code == 1
    assert f"--- Agent {shell.namespace}/b" in out
    assert "+++ /dev/null" in out
    assert f"Agent {shell.namespace}/b deleted" in await shell.ok("apply", *prune)
    assert await shell.agents() == ["a", "other"]
    assert (await shell.ok("get", "agents", "-o", "name", "-l", "app in (bots)")).split() == ["agent/a"]
    assert await shell.run("diff", *prune) == (0, "", "")


async def test_a_change_of_a_template_is_seen_in_the_diff_as_new_revisions_and_can_be_undone(shell: Space) -> None:
    both = "---\n".join((TEMPLATE, AGENT)).replace("acme", shell.namespace)
    await shell.apply(both)
    code, out, _ = await shell.run("diff", "-f", "-", stdin=both.replace("gpt-4o", "gpt-5"))
    assert code == 1
    assert f"# Agent {shell.namespace}/customer-support changed: template customer-support changed" in out
    await shell.apply(both.replace("gpt-4o", "gpt-5"))
    history = await shell.ok("rollout", "history", "customer-support")
    assert [line.split()[0] for line in history.splitlines()] == ["REVISION", "2", "1"]
    out = await shell.ok("rollout", "diff", "customer-support", "1", "2")
    assert ["".join(line.split()) for line in out.splitlines()[2:] if line[0] in "+-"] == ["-name:gpt-4o", "+name:gpt-5"]
    assert f"Agent {shell.namespace}/customer-support revision 3" in await shell.ok("rollout", "undo", "customer-support")
    assert await shell.ok("rollout", "diff", "customer-support", "1") == ""
    agent = await shell.agent("customer-support")
    assert "talon.dev/rolled-back-to" in agent["metadata"]["annotations"]
    code, _, errors = await shell.run("rollout", "undo", "customer-support", "--to-revision", "99")
    assert (code, "revision_not_found" in errors) == (3, True)


def editor(directory: Path, script: str) -> str:
    """A program as an editor; `$1` is the file."""
    path = directory / "editor.sh"
    path.write_text(f"#!/bin/sh\nset -e\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def somebody_else(directory: Path, shell: Space) -> str:
    """A command that changes agent `a` by the merge patch that is its argument."""
    path = directory / "other.py"
    path.write_text(
        "import sys, urllib.request as http\n"
        f"url = {shell.url + shell.path + '/agents/a'!r}\n"
        "headers = {'Content-Type': 'application/merge-patch+json'}\n"
        "http.urlopen(http.Request(url, sys.argv[1].encode(), headers, method='PATCH'), timeout=20)\n"
    )
    return f"{sys.executable} {path}"


def kept(directory: Path) -> list[Path]:
    """What editing has left behind."""
    return list(directory.glob("talon-edit-*"))


async def test_an_edit_is_applied_and_one_without_a_change_is_none(shell: Space, tmp_path: Path) -> None:
    await shell.bot("a")
    out = await shell.ok("edit", "agent", "a", EDITOR=editor(tmp_path, 'sed -i s/brief/polite/ "$1"'), TMPDIR=str(tmp_path))
    assert out == f"Agent {shell.namespace}/a changed\n"
    code, out, errors = await shell.run("edit", "agent/a", EDITOR="true", TMPDIR=str(tmp_path))
    assert (code, out) == (0, "")
    assert "is left as it is" in errors
    assert (await shell.agent())["definition"]["systemPrompt"] == "Be polite."
    assert (await shell.run("edit", "agent", "a", EDITOR="/no/such/editor"))[0] == 2
    assert not kept(tmp_path), "nothing is left behind"


async def test_a_refused_edit_is_opened_again_with_the_errors_on_top_and_nothing_typed_is_lost(
    shell: Space, tmp_path: Path
) -> None:
    await shell.bot("a")
    twice = """
    if [ -e seen ]; then cp "$1" second.yaml; sed -i s/colour:.red// "$1"; else touch seen; echo 'colour: red' >> "$1"; fi
    sed -i s/brief/polite/ "$1"
    """
    await shell.ok("edit", "agent", "a", EDITOR=editor(tmp_path, twice), TMPDIR=str(tmp_path))
    reopened = (tmp_path / "second.yaml").read_text().splitlines()
    assert any(line.startswith("#| ") and "colour" in line and "unknown field" in line for line in reopened)
    assert "colour: red" in reopened
    assert (await shell.agent())["definition"]["systemPrompt"] == "Be polite."
    once = 'grep -q colour "$1" || echo "colour: red" >> "$1"'
    code, out, errors = await shell.run("edit", "agent", "a", EDITOR=editor(tmp_path, once), TMPDIR=str(tmp_path))
    assert (code, out) == (3, "")
    (file,) = kept(tmp_path)
    assert str(file) in errors
    assert "colour: red" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_an_edit_keeps_what_somebody_else_changed_meanwhile_and_asks_where_both_changed_the_same(
    shell: Space, tmp_path: Path
) -> None:
    await shell.bot("a")
    other = somebody_else(tmp_path, shell)
    label = f"""{other} '{{"metadata": {{"labels": {{"tier": "gold"}}}}}}'"""
    prompt = f"""{other} '{{"definition": {{"systemPrompt": "PROMPT"}}}}'"""
    out = await shell.ok("edit", "agent", "a", EDITOR=editor(tmp_path, f'{label}\nsed -i s/brief/polite/ "$1"'))
    assert out == f"Agent {shell.namespace}/a changed\n"
    agent = await shell.agent()
    assert (agent["metadata"]["labels"], agent["definition"]["systemPrompt"]) == ({"app": "bots", "tier": "gold"}, "Be polite.")

    clash = f"""
    if [ -e again ]; then cp "$1" second.yaml; sed -i '/^#|/d' "$1"; exit 0; fi
    touch again
    {prompt.replace("PROMPT", "Theirs.")}
    sed -i 's/Be polite/Mine/' "$1"
    """
    await shell.ok("edit", "agent", "a", EDITOR=editor(tmp_path, clash))
    asked = (tmp_path / "second.yaml").read_text()
    assert '#|   definition.systemPrompt: it is now "Theirs."; you write "Mine."' in asked
    assert (await shell.agent())["definition"]["systemPrompt"] == "Mine."

    given_up = f"""
    [ -e third ] && exit 0
    touch third
    {prompt.replace("PROMPT", "Theirs again.")}
    sed -i 's/Mine/Mine again/' "$1"
    """
    code, _, errors = await shell.run("edit", "agent", "a", EDITOR=editor(tmp_path, given_up), TMPDIR=str(tmp_path))
    assert (code, "precondition_failed" in errors) == (3, True)
    assert "Mine again." in kept(tmp_path)[0].read_text()
    assert (await shell.agent())["definition"]["systemPrompt"] == "Theirs again."


async def test_deleting_waits_for_the_sessions_and_says_so(product: Product, shell: Space) -> None:
    await shell.bot("a")
    await shell.ok("session", "send", "a", "s", "hang", "--create")
    code, _, errors = await shell.run("delete", "agent", "a")
    assert code == 3
    assert "Session/a/s: is a session of it" in errors
    assert "--cascade" in errors
    out = await shell.ok("delete", "agent", "a", "--cascade")
    assert out == f"Agent {shell.namespace}/a deleted\n"
    code, _, errors = await shell.run("delete", "agent/a", "agent/b")
    assert (code, errors.count("no agent")) == (3, 2), errors
    assert await shell.ok("delete", "agent", "a", "b", "--ignore-not-found") == ""
    shell.write("m.yaml", BOT.replace("NAME", "x") + "---\nid: s1\nagent: x\n")
    await shell.ok("apply", "-f", "m.yaml")
    assert await shell.ok("delete", "-f", "m.yaml") == (
        f"Session {shell.namespace}/x/s1 deleted\nAgent {shell.namespace}/x deleted\n"
    )


async def test_describe_tells_conditions_references_users_and_revisions(shell: Space) -> None:
    await shell.apply(
        "---\n".join(
            (TEMPLATE.replace("hubspot-readonly", "hubspot"), AGENT, SCHEDULE, ENVIRONMENT.replace("stripe-readonly", "x"))
        )
    )
    out = await shell.ok("describe", "agent", "customer-support")
    for part in (f"Agent {shell.namespace}/customer-support", "Conditions", "Resolved", "Revisions, newest first"):
        assert part in out
    uses = out.partition("\nUses\n")[2].partition("\n\n")[0]
    assert "AgentTemplate" in uses
    used = out.partition("\nUsed by\n")[2].partition("\n\n")[0]
    assert "Schedule" in used
    out = await shell.ok("describe", "template", "customer-support")
    uses = [line.split(maxsplit=2) for line in out.partition("\nUses\n")[2].partition("\n\n")[0].splitlines()[1:]]
    assert uses == [["McpServer", "hubspot", "missing"], ["McpServer", "stripe-readonly", "a toolset of the workers"]]
    graph = await shell.ok("graph", shell.namespace)
    assert "McpServer hubspot (missing)" in graph
    assert "toolset stripe-readonly" in graph
    await shell.apply(TEMPLATE)
    await shell.ok("session", "send", "customer-support", "s", "hello", "--create", "--wait")
    assert "completed" in await shell.ok("describe", "session", "customer-support/s")
    await shell.apply(f"kind: Namespace\napiVersion: talon.dev/v1alpha1\nmetadata: {{name: '{shell.namespace}:eu'}}\n")
    out = await shell.ok("describe", "ns", shell.namespace)
    assert "Status:" in out
    assert f"Namespaces in it\n  {shell.namespace}:eu\n" in out


async def test_labels_and_fields_are_changed_without_the_rest(shell: Space) -> None:
    await shell.bot("a")
    await shell.ok("label", "agent", "a", "tier=gold", "app-")
    assert (await shell.agent())["metadata"]["labels"] == {"tier": "gold"}
    assert (await shell.ok("label", "agent", "a", "tier=gold")).endswith("/a unchanged\n")
    await shell.ok("patch", "agent/a", "-p", '{"definition": {"systemPrompt": "Sing."}}')
    agent = await shell.agent()
    assert (agent["definition"]["systemPrompt"], "modelPolicy" in agent["definition"]) == ("Sing.", True)
    code, _, errors = await shell.run("patch", "agent", "a", "-p", "definition: {colour: red}")
    assert (code, errors.count("definition.colour: unknown field")) == (3, 1), "once is enough"
    await shell.call("POST", "/agents/a/sessions", {"id": "s"})
    await shell.ok("patch", "session", "a/s", "-p", "metadata: {owner: ops}")
    assert (await shell.call("GET", "/agents/a/sessions/s"))["metadata"] == {"owner": "ops"}


async def line_of(process: asyncio.subprocess.Process) -> str:
    """The next line that a running command writes."""
    assert process.stdout is not None
    assert process.stderr is not None
    line = await asyncio.wait_for(process.stdout.readline(), 30)
    assert line, (await process.stderr.read()).decode()
    return line.decode().rstrip()


async def changes_of(process: asyncio.subprocess.Process, seen: list[dict[str, Any]], count: int) -> None:
    """Read lines until `count` changes were seen."""
    while len(seen) < count:
        seen.append(json.loads(await line_of(process)))


async def test_a_watch_goes_on_over_a_killed_gateway_without_losing_or_repeating(tmp_path: Path) -> None:
    (tmp_path / "talon.yaml").write_text("providers: {openai: {kind: scripted, script: s.yaml}}\n")
    (tmp_path / "s.yaml").write_text(SCRIPT)
    async with Product(tmp_path, args=("--port", str(free_port()))) as own:
        shell = Space(own.url, tmp_path, "default")
        await shell.bot("a")
        watch = await shell.start("get", "agents", "--watch", "-o", "json")
        everywhere = await shell.start("get", "agents", "-A", "-w", "-o", "name")
        seen: list[dict[str, Any]] = []
        try:
            await changes_of(watch, seen, 1)
            lines = [await line_of(everywhere)]
            await shell.bot("b")
            await shell.patch("a", {"metadata": {"labels": {"n": "1"}}})
            await changes_of(watch, seen, 3)
            await own.kill()
            await own.start()
            await shell.patch("a", {"metadata": {"labels": {"n": "2"}}})
            await shell.call("DELETE", "/agents/b")
            await shell.bot("c")
            await changes_of(watch, seen, 6)
            await own.kill()
            await own.start()
            await shell.patch("a", {"metadata": {"labels": {"n": "3"}}})
            await changes_of(watch, seen, 7)
            watch.send_signal(signal.SIGINT)
            out, errors = await asyncio.wait_for(watch.communicate(), 20)
            assert (watch.returncode, out) == (130, b"")
            assert b"Traceback" not in errors
            lines += [await line_of(everywhere) for _ in seen[1:]]
        finally:
            for process in (watch, everywhere):
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        told = [(one["type"], one["object"]["metadata"]["name"]) for one in seen]
        assert told == [
            ("added", "a"),
            ("added", "b"),
            ("modified", "a"),
            ("modified", "a"),
            ("deleted", "b"),
            ("added", "c"),
            ("modified", "a"),
        ]
        versions = [int(one["object"]["metadata"]["resourceVersion"]) for one in seen]
        assert versions == sorted(set(versions))
        assert [one["object"]["metadata"]["labels"].get("n") for one in seen if one["object"]["metadata"]["name"] == "a"] == [
            None,
            "1",
            "2",
            "3",
        ]
        assert lines == [f"{kind} agent/{name}" for kind, name in told]
