"""What the documents tell a stranger to type, typed into a shell against the booted product."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.markdown import page
from support.product import Api, Product

SERVER = "http://127.0.0.1:19789"


@dataclass
class Stranger:
    """A shell in the directory that `talon init hello` made, beside a running `talon up`."""

    directory: Path
    product: Product

    async def types(self, text: str, stdin: str = "", *, code: int = 0) -> str:
        """Run lines of shell; -> what they write to standard output. Fails on another exit code."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("TALON_", "OPENAI_")) and k != "DATABASE_URL"}
        env |= {"TALON_SERVER": self.product.url, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            text.replace(SERVER, self.product.url),
            cwd=self.directory,
            env=env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
        assert process.returncode == code, f"{text}\n{out.decode()}\n{err.decode()}"
        return out.decode()


@pytest.fixture
async def stranger(tmp_path: Path) -> AsyncIterator[Stranger]:
    """After the README's first block for an own agent."""
    (block, *_) = page("README.md").section("Your own agent in five minutes").blocks()
    (line,) = [line for line in block.text.splitlines() if line.startswith("talon init")]
    product = Product(tmp_path / "hello")
    await Stranger(tmp_path, product).types(line)
    async with product:
        yield Stranger(tmp_path / "hello", product)


async def test_the_quick_starts_agent_answers_and_its_journal_can_be_read(stranger: Stranger) -> None:
    asked = re.findall(r"`(How many days[^`]*|note [^`]*)`", page("docs/quick-start.md").text)
    assert len(asked) == 2
    answers = await stranger.types("talon chat assistant", "\n".join(asked) + "\n")
    assert re.search(r"2030-01-01: \d+ days", answers)
    assert "noted" in answers
    block = next(block for block in page("docs/quick-start.md").blocks() if "talon session journal" in block.text)
    shown = await stranger.types(f"set -e\n{block.text}")
    assert "turn.completed" in shown


async def test_the_readmes_curl_sends_once_streams_and_resumes(stranger: Stranger) -> None:
    if shutil.which("curl") is None:
        pytest.skip("the README's curl commands are skipped: there is no curl")
    send, stream = [block.text for block in page("README.md").section("By HTTP").blocks()]
    first = await stranger.types(send)
    assert '"seq":1' in first
    assert await stranger.types(send) == first, "under the same key it is one message"
    base = send.splitlines()[0]
    from_the_start, resumed = stream.splitlines()
    turn = re.search(r'"turn_id":"([^"]+)"', first)
    assert turn is not None
    async with Api(stranger.product.url) as api:
        end = await api.end_of("default/assistant/monday", turn[1])
    assert end["type"] == "turn.completed"
    # A stream does not end by itself: curl is told to, and says so with 28.
    whole = await stranger.types(f"{base}\n{from_the_start.replace('curl ', 'curl --max-time 2 ')}", code=28)
    ids = [int(one) for one in re.findall(r"^id: (\d+)$", whole, re.MULTILINE)]
    assert ids == list(range(1, end["seq"] + 1))
    rest = await stranger.types(f"{base}\n{resumed.replace('curl ', 'curl --max-time 2 ')}", code=28)
    assert [int(one) for one in re.findall(r"^id: (\d+)$", rest, re.MULTILINE)] == ids[9:]


async def test_a_backup_made_as_documented_is_whole_while_the_product_runs(stranger: Stranger, tmp_path: Path) -> None:
    await stranger.types('talon session send assistant kept "note buy milk" --create --wait')
    command = next(block.text for block in page("docs/operations.md").section("Backups").blocks() if "backup" in block.text)
    await stranger.types(command.replace("python3", shlex.quote(sys.executable)))
    data = tmp_path / "restored" / "talon-data"
    data.mkdir(parents=True)
    shutil.copy(stranger.directory / "backup.db", data / "talon.db")
    copy = sqlite3.connect(data / "talon.db")
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    copy.close()
    async with Product(data.parent) as product, Api(product.url) as api, Api(stranger.product.url) as original:
        assert await api.journal("default/assistant/kept") == await original.journal("default/assistant/kept")


async def test_the_commands_of_the_agents_guide_work_on_what_it_shows(stranger: Stranger) -> None:
    guide = page("docs/guides/agents.md")
    manifests = [block.text for block in guide.blocks() if block.info == ("yaml", "manifest")]
    (stranger.directory / "guide").mkdir()
    (stranger.directory / "guide" / "all.yaml").write_text("---\n".join(manifests), encoding="utf-8")
    applied = await stranger.types("talon apply -f guide --dry-run && talon apply -f guide")
    assert "Session acme/enterprise-renewals created" in applied
    for line in ("talon get revisions assistant", "talon get agent assistant -o yaml --effective"):
        assert line in guide.text
        assert await stranger.types(line)
    line = "talon session create translator german --feature language=German"
    assert line in guide.text
    assert "German" in await stranger.types(f"{line} -o json")


async def test_the_resources_guide_goes_the_whole_way_from_declaring_to_taking_along(stranger: Stranger) -> None:
    guide = page("docs/guides/resources.md")
    (stranger.directory / "acme").mkdir()
    for number, block in enumerate(block for block in guide.blocks() if block.info == ("yaml", "manifest")):
        (stranger.directory / "acme" / f"{number}.yaml").write_text(block.text, encoding="utf-8")
    said = ""
    for block in guide.blocks():
        if block.info == ("sh",):
            said += await stranger.types("set -e\nexport EDITOR=true\n" + "\n".join(map(bounded, block.text.splitlines())))
    for part in (
        "Schedule.spec.target  Target  required",
        "Agent acme/helpdesk created",
        "Schedule acme/monday created",
        "Revisions, newest first",
        "    └── AgentTemplate support",
        "ADDED",
        "Agent acme/helpdesk labelled",
        "Agent acme/helpdesk revision 3",
        "AgentTemplate acme/support deleted",
        "backup/agents/helpdesk.yaml",
        "Namespace acme deleted",
        "schemas/agent.schema.json",
    ):
        assert part in said, part
    assert said.count("Agent acme/helpdesk created") == 3, "at first, after the template was deleted, and from the export"


def bounded(line: str) -> str:
    """A line of the guide: a diff tells by 1 that something differs, and a watch does not end by itself."""
    if line.startswith("talon diff"):
        return f"{line} || test $? = 1"
    if "--watch" not in line:
        return line
    shown = "until grep -q ADDED watched; do sleep 0.1; done; kill $!; wait $! || test $? = 143; cat watched"
    return f"{line} > watched & {shown}"
