"""The control-plane document's use case: a template, its agent, a named session, and a schedule that wakes the two on weekdays at
14:00 in Los Angeles. The process is killed in the middle of the woken turn, and the next day the same thread goes on."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from soak.machine import jumping_clock
from support.manifests import AGENT, SCHEDULE, SESSION, TEMPLATE
from support.product import Api, Product
from support.waiting import until
from talon.providers.scripted.conversation import Conversation
from talon.providers.scripted.script import Script
from talon.providers.scripted.server import ScriptedServer

EXAMPLE = Path(__file__).parents[2] / "examples" / "renewals"
WHERE = "acme/customer-support/enterprise-renewals"
ZONE = ZoneInfo("America/Los_Angeles")
WAKEUP = "Review accounts renewing in the next 14 days and draft follow-ups."
DRAFT = {"company": "globex", "to": "mara@globex.example", "subject": "Your renewal", "body": "Dear Mara, your seats renew."}


class Model:
    """Looks up what renews, drafts one letter, and sums up; remembers what it was asked."""

    def __init__(self) -> None:
        self.server = ScriptedServer(Script(function=self.answer))

    def answer(self, conversation: Conversation) -> dict[str, Any]:
        """The next step of the woken turn."""
        steps: list[dict[str, Any]] = [
            {"calls": [{"tool": "list_renewals", "arguments": {"days": 14}}]},
            {"calls": [{"tool": "draft_follow_up", "arguments": DRAFT}]},
            {"text": "Globex comes first: a follow-up is drafted."},
        ]
        return steps[min(conversation.step, 3) - 1]


def next_monday(now: datetime) -> datetime:
    """14:00 of the coming Monday, in Los Angeles; never today."""
    day = (now + timedelta(days=7 - now.weekday())).date()
    return datetime(day.year, day.month, day.day, 14, tzinfo=ZONE)


async def of_the_journal(api: Api, type_: str) -> list[dict[str, Any]]:
    return [entry for entry in await api.journal(WHERE) if entry["type"] == type_]


async def count(api: Api, type_: str, source: str = "") -> int:
    found = await of_the_journal(api, type_)
    return len([entry for entry in found if not source or entry["payload"].get("source") == source])


@pytest.mark.timeout(180)
async def test_the_weekday_wakeup_goes_on_after_a_kill_and_the_next_day_on_the_same_thread(tmp_path: Path) -> None:
    clock = jumping_clock(tmp_path)
    if clock is None:
        pytest.skip("simulated days are skipped: libfaketime is not installed")
    model = Model()
    monday = next_monday(datetime.now(ZONE))

    def go_to(moment: datetime) -> None:
        clock.set(round(moment.timestamp() - datetime.now(ZONE).timestamp()))

    async with model.server:
        env = {
            **clock.env,
            "TALON_PROVIDERS_OPENAI_BASE_URL": model.server.base_url,
            "OPENAI_API_KEY": "sk-test",
            "RENEWALS_SLOW_S": "2",
            "PYTHONPATH": f"{EXAMPLE}",
        }
        here = ("--config", str(EXAMPLE / "talon.yaml"), "--data-dir", str(tmp_path / "data"))
        go_to(monday - timedelta(minutes=10))
        up = Product(tmp_path / "up", args=here, env=env)
        await up.start()
        async with Api(up.url) as api:
            applied = await api.apply("---\n".join((TEMPLATE, AGENT, SESSION, SCHEDULE)))
            fires = next(item for item in applied["items"] if item["kind"] == "Schedule")["fires"]
            days = [monday + timedelta(days=day) for day in range(5)]
            assert [one["local"] for one in fires] == [day.isoformat() for day in days]
            go_to(monday - timedelta(seconds=2))
            await until(lambda: begun(api, 1), 30)
            await up.kill()

        await up.start()
        async with Api(up.url) as api:
            await until(lambda: ended(api, 1), 60)
            assert await count(api, "message.received", "schedule") == 1
            woken = [e for e in await of_the_journal(api, "message.received") if e["payload"]["source"] == "schedule"]
            assert woken[0]["payload"]["content"].strip() == WAKEUP
            assert woken[0]["payload"]["metadata"]["scheduled_at"] == monday.isoformat()
            assert await count(api, "turn.resumed") == 1

            go_to(monday + timedelta(days=1) - timedelta(seconds=2))
            await until(lambda: ended(api, 2), 60)
            messages = [e["payload"]["content"].strip() for e in await of_the_journal(api, "message.received")]
            assert messages[-2:] == [WAKEUP, WAKEUP]
            assert "Review renewals due in 14 days." in messages  # the thread of before, imported with the session
            records = (await api.get("/v1/ns/acme/schedules/renewal-check/history"))["items"]
            assert [record["outcome"] for record in records] == ["completed", "completed"]
            assert [record["local"] for record in records] == [(monday + timedelta(days=day)).isoformat() for day in (1, 0)]
            assert all(record["lag_ms"] < 5_000 for record in records), records
            status = (await api.get("/v1/ns/acme/schedules/renewal-check"))["status"]["schedule"]
            assert status["nextLocal"] == (monday + timedelta(days=2)).isoformat()
        assert await up.stop() == 0


async def begun(api: Api, times: int) -> bool:
    """Whether the letter is being drafted, with no receipt yet."""
    return await count(api, "tool.started") == 2 * times and await count(api, "tool.finished") == 2 * times - 1


async def ended(api: Api, times: int) -> bool:
    """Whether so many turns have completed."""
    return await count(api, "turn.completed") == times
