"""The route of Cloud Tasks on the worker's own port, as a bare ASGI endpoint: who calls, then the body, then the answer."""

from __future__ import annotations

import math

import msgspec
from starlette.types import Receive, Scope, Send

from talon.dispatch.schedules.cloudtasks.callbacks import Callbacks
from talon.dispatch.schedules.cloudtasks.occurrence import BODY_MAX
from talon.domain.errors import TooLarge


class CallbackRoute:
    """Answers calls with `{"outcome": …}`; refusals are raised, as every route does."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks

    async def serve(self, scope: Scope, receive: Receive, send: Send, places: dict[str, str]) -> None:
        """One call. Raises `Unauthenticated`, `Malformed`, `TooLarge`, `Unavailable`."""
        del places
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        task = await self._callbacks.recognise(shown[0].decode("latin-1") if len(shown) == 1 else "")
        answer = await self._callbacks.answer(task, await _body(receive))
        headers = [(b"content-type", b"application/json")]
        if answer.wait_s:
            headers.append((b"retry-after", str(math.ceil(answer.wait_s)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": msgspec.json.encode({"outcome": answer.outcome})})


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > BODY_MAX:
            raise TooLarge("too_large", f"the body of a callback has at most {BODY_MAX} bytes")
    return body
