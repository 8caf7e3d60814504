"""The queue in Cloud Tasks, by Google's own client (the extra `google`), which is imported when it is first needed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from talon.domain.errors import FieldError, Invalid

#: For one request to the queue, and for the answer to one of its calls.
CALL_S, ANSWER_S = 5.0, 30
HINT = "cloud_tasks needs the extra google: pip install 'talon-runtime[google]'"


class Unreached(Exception):
    """The queue did not do it, for now; the text says why."""


class NewTask(msgspec.Struct, frozen=True):
    """A call to be made at `due_ms`. `authorization` is the header's value, "" where the queue makes a token itself."""

    id: str
    due_ms: int
    body: bytes
    authorization: str = ""


class TaskQueue(Protocol):
    """Somebody who calls at a time."""

    async def create(self, task: NewTask) -> None:
        """See to it that the call is made; nothing where it will be already, or was lately. Raises `Unreached`."""
        ...

    async def delete(self, task: str) -> None:
        """Take one back; nothing where it is not there any more. Raises `Unreached`."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """`parent`: the queue's full name. `url`: where its calls go. `service_account` makes the queue show an OIDC token for
    `audience`. `endpoint`: where Cloud Tasks is, a URL; "" for Google's own, http:// without encryption and credentials."""

    parent: str
    url: str
    service_account: str = ""
    audience: str = ""
    endpoint: str = ""


class CloudTasks:
    """A `TaskQueue`. Credentials are what Google's own search finds, looked for at the first request."""

    def __init__(self, settings: QueueSettings) -> None:
        """Raises `Invalid` when the client is not installed."""
        self._settings = settings
        try:
            self._tasks: Any = import_module("google.cloud.tasks_v2")
            self._api: Any = import_module("google.api_core.exceptions")
            self._auth: Any = import_module("google.auth")
            self._grpc: Any = import_module("grpc")
        except ModuleNotFoundError as error:
            field = "control_plane.scheduler.backend"
            message = f"{HINT} ({error.name} is missing)"
            raise Invalid("invalid", f"{field}: {message}", (FieldError(field, message, "cloud_tasks"),)) from None
        self._failures = (self._api.GoogleAPIError, self._auth.exceptions.GoogleAuthError, OSError, TimeoutError)
        self._opened: Any = None
        self._opening = asyncio.Lock()

    async def create(self, task: NewTask) -> None:
        """See `TaskQueue.create`. `ALREADY_EXISTS` is success: it is there, or it was and has called, or was taken back."""
        request = {"parent": self._settings.parent, "task": self._task(task)}
        try:
            client = await self._client()
            await client.create_task(request=request, timeout=CALL_S, retry=None)
        except self._api.AlreadyExists:
            return
        except self._failures as error:
            raise Unreached(_words(error)) from None

    async def delete(self, task: str) -> None:
        """See `TaskQueue.delete`."""
        try:
            client = await self._client()
            await client.delete_task(request={"name": f"{self._settings.parent}/tasks/{task}"}, timeout=CALL_S, retry=None)
        except self._api.NotFound:
            return
        except self._failures as error:
            raise Unreached(_words(error)) from None

    async def close(self) -> None:
        """See `TaskQueue.close`."""
        if self._opened is not None:
            await self._opened.transport.close()

    def _task(self, task: NewTask) -> dict[str, Any]:
        settings = self._settings
        request: dict[str, Any] = {
            "http_method": self._tasks.HttpMethod.POST,
            "url": settings.url,
            "headers": {"Content-Type": "application/json"},
            "body": task.body,
        }
        if task.authorization:
            request["headers"]["Authorization"] = task.authorization
        else:
            request["oidc_token"] = {"service_account_email": settings.service_account, "audience": settings.audience}
        seconds, ms = divmod(task.due_ms, 1000)
        return {
            "name": f"{settings.parent}/tasks/{task.id}",
            "schedule_time": {"seconds": seconds, "nanos": ms * 1_000_000},
            "dispatch_deadline": {"seconds": ANSWER_S},
            "http_request": request,
        }

    async def _client(self) -> Any:
        async with self._opening:
            if self._opened is None:
                self._opened = await self._open()
        return self._opened

    async def _open(self) -> Any:
        client, endpoint = self._tasks.CloudTasksAsyncClient, urlsplit(self._settings.endpoint)
        if endpoint.scheme == "http":
            channel = self._grpc.aio.insecure_channel(endpoint.netloc)
            return client(transport=client.get_transport_class("grpc_asyncio")(channel=channel))
        scopes = ("https://www.googleapis.com/auth/cloud-platform",)
        credentials, _ = await asyncio.to_thread(self._auth.default, scopes=scopes)  # it may ask the network
        options = {"api_endpoint": endpoint.netloc} if endpoint.netloc else None
        return client(credentials=credentials, client_options=options)


def _words(error: BaseException) -> str:
    """Why, in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
