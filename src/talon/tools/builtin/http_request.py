"""`http_request`: the built-in tool that talks HTTP to the public Internet and to the hosts that the operator lists."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from talon.tools.builtin.addresses import Lookup, host_of, host_rules, listed, system_lookup
from talon.tools.builtin.request import METHODS, READS, Request, build, parse_url, redirected
from talon.tools.builtin.response import Answer, render
from talon.tools.protocol import Effect, EffectUnknown, Outcome, ToolContext, ToolError, ToolSpec

if TYPE_CHECKING:
    from talon.tools.builtin.wire import Wire

USER_AGENT = "Talon"

_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "method": {"type": "string", "enum": list(METHODS), "default": "GET", "description": "The HTTP method."},
        "url": {"type": "string", "description": "An absolute http or https URL, without user name and password."},
        "headers": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Request headers. Host, Idempotency-Key and those of the connection itself cannot be set.",
        },
        "body": {"type": "string", "description": "The request's body as text, e.g. JSON. Not for GET and HEAD."},
    },
    "required": ["url"],
    "additionalProperties": False,
}
_DESCRIPTION = (
    "Make an HTTP request and read the answer as text: status line, main headers, body. Redirects are followed. "
    "Private and local addresses are refused. Methods other than GET and HEAD may change something: use them as the user wants."
)


class HttpRequestSettings(msgspec.Struct, frozen=True):
    """`tools.http_request` of the configuration. Hosts are `host` or `host:port`, compared whole.

    `allow_hosts` may be private, loopback and the like. `idempotent_hosts` promise to honour `Idempotency-Key`, for at least a day.
    `timeout_s` bounds one call with its redirects, `response_max` (bytes) one body, `output_max` (characters) the whole result.
    """

    allow_hosts: tuple[str, ...] = ()
    idempotent_hosts: tuple[str, ...] = ()
    timeout_s: float = 30.0
    response_max: int = 1_048_576
    output_max: int = 20_000
    redirects_max: int = 5


class HttpRequest:
    """The tool. GET and HEAD are `read`; other methods carry the call's key and are `idempotent` at `idempotent_hosts`, else
    `unsafe`. A connection goes to an address that was judged after resolution, on every redirect again."""

    def __init__(self, settings: HttpRequestSettings, lookup: Lookup = system_lookup) -> None:
        """Raises `Invalid` for a host entry that is none. `lookup` is the system's name resolution."""
        self._settings = settings
        self._idempotent = host_rules(settings.idempotent_hosts, "tools.http_request.idempotent_hosts")
        self._allowed, self._lookup = host_rules(settings.allow_hosts, "tools.http_request.allow_hosts"), lookup
        self._wire: Wire | None = None
        self._spec = ToolSpec(
            name="http_request",
            description=_DESCRIPTION,
            parameters=_PARAMETERS,
            effect="unsafe",
            timeout_s=settings.timeout_s + 5.0,  # its own limit comes first: it knows what was sent
            output_max=settings.output_max,
            code=hashlib.sha256(inspect.getsource(HttpRequest).encode()).hexdigest(),
        )

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    def effect_of(self, args: Mapping[str, Any]) -> Effect:
        if args.get("method", "GET") in READS:
            return "read"
        try:
            url = parse_url(str(args.get("url", "")))
        except ToolError:
            return "unsafe"  # it will be refused; until then the worst is assumed
        return "idempotent" if listed(self._idempotent, host_of(url), url.port or 0) else "unsafe"

    async def call(self, args: dict[str, Any], context: ToolContext) -> str:
        request = build(args)
        deadline = asyncio.get_running_loop().time() + self._settings.timeout_s
        answer = await self._send(request, context.key, deadline)
        for hop in range(self._settings.redirects_max + 1):
            try:
                target = redirected(request, answer.status, answer.headers.get("location", ""))
                if target is None:
                    break
                if hop == self._settings.redirects_max:
                    raise ToolError(f"these were {hop} already")
                answer = await self._send(target, context.key, deadline)
            except EffectUnknown:
                raise
            except ToolError as error:
                # The answer so far stands: what came before the redirect may have taken effect.
                answer = msgspec.structs.replace(answer, notes=(*answer.notes, f"redirect not followed: {error}"))
                break
            request = target
            answer = msgspec.structs.replace(answer, url=str(request.url))
        return render(answer)

    async def _send(self, request: Request, key: str, deadline: float) -> Answer:
        left = deadline - asyncio.get_running_loop().time()
        return await self._opened().send(request, key, max(left, 0.001))

    def _opened(self) -> Wire:
        if self._wire is None:
            from talon.tools.builtin.wire import Wire  # with aiohttp, the longest import but FastAPI: only who makes a call pays it

            self._wire = Wire(self._allowed, self._settings.response_max, USER_AGENT, self._lookup)
        return self._wire

    async def probe(self, args: dict[str, Any], context: ToolContext) -> Outcome:
        return Outcome("unknown")

    async def close(self) -> None:
        """Close the pooled connections."""
        if self._wire is not None:
            await self._wire.close()
