"""A fake Google Cloud Tasks on a real port: its gRPC service on one side, HTTP calls at their times on the other.

Unlike the emulator it refuses names that were used before, and shows OIDC tokens when it calls.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import aiohttp
import grpc

from support.idp import Idp

SERVICE = "google.cloud.tasks.v2.CloudTasks"
PARENT = "projects/p/locations/europe-west3/queues/wakeups"
ACCOUNT = "caller@p.iam.gserviceaccount.com"
#: Between two calls for a task whose call was not answered by 2xx.
AGAIN_S = 0.1
_types: Any = import_module("google.cloud.tasks_v2.types")
_empty: Any = import_module("google.protobuf.empty_pb2")


@dataclass
class Call:
    """A call that was made: its task's short name, and the answer."""

    task: str
    status: int
    outcome: str


@dataclass
class FakeCloudTasks:
    """The fake. `tasks` are those that wait, by short name. `mute`: it calls nobody. `down`: it answers no request. `created` is
    called with each new task's name before the request is answered. `deliver_to` replaces the address of calls."""

    idp: Idp
    endpoint: str = ""
    tasks: dict[str, Any] = field(default_factory=dict[str, Any])
    used: set[str] = field(default_factory=set[str])
    asked: list[str] = field(default_factory=list[str])
    calls: list[Call] = field(default_factory=list[Call])
    mute: bool = False
    down: bool = False
    created: Callable[[str], Awaitable[None]] | None = None
    deliver_to: str = ""
    _http: Any = None
    _running: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def handler(self) -> Any:
        """Its gRPC service."""
        made = _types.CreateTaskRequest.deserialize, _types.Task.serialize
        gone = _types.DeleteTaskRequest.deserialize, _empty.Empty.SerializeToString
        methods = {
            "CreateTask": grpc.unary_unary_rpc_method_handler(self._create, *made),  # type: ignore[arg-type]
            "DeleteTask": grpc.unary_unary_rpc_method_handler(self._delete, *gone),  # type: ignore[arg-type]
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def body(self, task: str) -> dict[str, Any]:
        """The occurrence that a waiting task is about."""
        return json.loads(self.tasks[task].http_request.body)

    def of(self, uid: str) -> list[str]:
        """The tasks of a schedule that wait."""
        return [name for name in self.tasks if uid in name]

    def outcomes(self, uid: str) -> list[tuple[int, str]]:
        """What the calls about a schedule were answered."""
        return [(call.status, call.outcome) for call in self.calls if uid in call.task]

    def token(self, **more: Any) -> str:
        """A token of the service account, or nearly."""
        return self.idp.token(**{"email": ACCOUNT, "email_verified": True, **more})

    async def close(self) -> None:
        """Call nobody any more."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    async def _create(self, request: Any, context: Any) -> Any:
        await self._may(context)
        assert request.parent == PARENT
        name = request.task.name.removeprefix(f"{PARENT}/tasks/")
        self.asked.append(name)
        if request.task.schedule_time.timestamp() > time.time() + 30 * 86_400:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "schedule_time is more than 30 days ahead")
        if name in self.used:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "the name is in use, or was")
        self.used.add(name)
        self.tasks[name] = request.task
        running = asyncio.create_task(self._wait_and_call(name, request.task))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        if self.created is not None:
            await self.created(name)
        return request.task

    async def _delete(self, request: Any, context: Any) -> Any:
        await self._may(context)
        if self.tasks.pop(request.name.rpartition("/")[2], None) is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such task")
        return _empty.Empty()

    async def _may(self, context: Any) -> None:
        if self.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "out of order")

    async def _wait_and_call(self, name: str, task: Any) -> None:
        await asyncio.sleep(max(0.0, task.schedule_time.timestamp() - time.time()))
        while name in self.tasks:
            if not self.mute and await self._call(name, task.http_request):
                self.tasks.pop(name, None)
            await asyncio.sleep(AGAIN_S)

    async def _call(self, name: str, request: Any) -> bool:
        if self._http is None:
            self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15))
        headers = {"X-CloudTasks-TaskName": name, **request.headers}
        if request.oidc_token.service_account_email:
            told = request.oidc_token
            headers["Authorization"] = f"Bearer {self.token(email=told.service_account_email, aud=told.audience)}"
        url = self.deliver_to + "/v1/callbacks/schedules" if self.deliver_to else request.url
        try:
            async with self._http.post(url, data=request.body, headers=headers) as answer:
                found = await answer.json(content_type=None)
                self.calls.append(Call(name, answer.status, found.get("outcome") or found.get("code") or ""))
                return 200 <= answer.status < 300
        except aiohttp.ClientError:
            self.calls.append(Call(name, 0, "unreachable"))
            return False


@asynccontextmanager
async def cloud_tasks(idp: Idp) -> AsyncGenerator[FakeCloudTasks]:
    """A running fake."""
    fake = FakeCloudTasks(idp)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((fake.handler(),))
    fake.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield fake
    finally:
        await fake.close()
        await server.stop(0)
