"""The door: every call passes here once, whatever it asks.

Gives the call an id, recognises who calls, reads the message, asks the table of permissions, has the method answer, turns whatever
comes out as an exception into a status with its details, and tells the access log how it went.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message

from talon.access.roles import LOCAL
from talon.domain.errors import Defect, Malformed, TalonError, TooLarge
from talon.gateway.api.permits import refusal, sight_of
from talon.gateway.api.table import TABLE
from talon.gateway.deps import GatewayDeps
from talon.gateway.grpc.call import Call, Method
from talon.gateway.grpc.errors import REQUEST_ID_KEY, render
from talon.gateway.grpc.visit import Context, Visit
from talon.store.sight import NOTHING, look_as

log = logging.getLogger("talon.gateway")
T = TypeVar("T")


class Front:
    """Serves methods. `finish` waits for what outlives its callers."""

    def __init__(self, deps: GatewayDeps) -> None:
        self._deps = deps
        self._under_way: set[asyncio.Future[Any]] = set()

    def unary(self, path: str, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler of a method with one answer."""

        async def serve(data: bytes, context: Context) -> bytes:
            visit = Visit(self._deps, path, context)

            async def answer() -> bytes:
                call, message = await self._admit(visit, method, data)
                work = method.handler(call, message)
                reply = await self._to_its_end(work) if method.changes else await work
                if reply is None:
                    raise AssertionError("a method with one answer gives one")
                return reply.SerializeToString()

            return cast(bytes, await self._told(visit, answer))

        return grpc.unary_unary_rpc_method_handler(serve)

    def streaming(self, path: str, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler of a method whose answer is a stream."""

        async def serve(data: bytes, context: Context) -> None:
            visit = Visit(self._deps, path, context)

            async def answer() -> None:
                await method.handler(*await self._admit(visit, method, data))

            await self._told(visit, answer)

        return grpc.unary_stream_rpc_method_handler(cast(Any, serve))

    def dialogue(
        self, path: str, request: type[T], answer: Callable[[AsyncIterator[T]], AsyncIterator[Message]]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler of an open method whose questions and answers are streams."""

        async def serve(questions: AsyncIterator[bytes], context: Context) -> None:
            visit = Visit(self._deps, path, context)

            async def read() -> AsyncIterator[T]:
                async for data in questions:
                    yield cast(T, decode(cast(type[Message], request), data))

            async def work() -> None:
                async for reply in answer(read()):
                    await context.write(reply.SerializeToString())

            await self._told(visit, work)

        return grpc.stream_stream_rpc_method_handler(cast(Any, serve))

    async def finish(self) -> None:
        """Return when all changes that were begun are done."""
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _admit(self, visit: Visit, method: Method, data: bytes) -> tuple[Call, Message]:
        """Who calls, and what for: asked before anything is looked up. An open method has no principal."""
        deps = self._deps
        if deps.wall.stands:
            look_as(NOTHING if method.asks else None)  # in this context, which is the call's own
        if method.asks:
            visit.who = await deps.access.authenticator.principal(visit.metadata.get("authorization", ""), "")
            if deps.wall.stands:
                look_as(sight_of(visit.who))
            deps.holding.pace(visit.who)
        if len(data) > deps.settings.body_max:
            raise TooLarge("too_large", f"the message is larger than {deps.settings.body_max} bytes, the most that is read")
        message = decode(method.request, data)
        visit.operation = method.operation_of(message)
        row, at = TABLE[visit.operation], method.at(message)
        visit.names(row, at)
        if visit.who is not None and (error := refusal(visit.who, row, at)) is not None:
            raise error
        return Call(visit.who or LOCAL, visit.metadata, deps.ids, visit.begin, visit.write, visit.at_end), message

    async def _to_its_end(self, work: Awaitable[T]) -> T:
        """The caller may go; what was begun is done all the same."""
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have gone: then nobody else asks

    async def _told(self, visit: Visit, work: Callable[[], Awaitable[T]]) -> T | None:
        """Do it; what goes wrong becomes the call's status."""
        try:
            result = await work()
        except TalonError as exc:
            error = exc
        except asyncio.CancelledError:
            visit.tell("cancelled")
            raise
        except Exception:  # the last stop: whatever it is, the client gets an id, and the log the rest
            log.exception("request %s: %s failed", visit.request_id, visit.path)
            error = Defect("internal", f"the gateway made a mistake; its log has it under request {visit.request_id}")
        else:
            visit.context.set_trailing_metadata(((REQUEST_ID_KEY, visit.request_id),))
            visit.tell("ok")
            return result
        visit.tell(error.code)
        code, message, details = render(error, visit.request_id)
        await visit.context.abort(code, message, details)
        raise AssertionError("abort raises")


def decode(kind: type[Message], data: bytes) -> Message:
    """Raises `Malformed` for bytes that are no such message."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise Malformed("malformed", f"the bytes are no {kind.DESCRIPTOR.full_name}") from None
