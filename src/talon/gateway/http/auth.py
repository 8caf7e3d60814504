"""`/v1/auth`: who I am, keys and tokens, browsers' sessions and logins, and who did what."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from talon.access.grants import decode, text_of
from talon.access.protocol import KEY_MAX_S, NAME_LENGTH_MAX, TOKEN_DEFAULT_S, TOKEN_MAX_S, KeyRequest, TokenRequest
from talon.access.roles import Grant, Principal, Role, may, sees
from talon.domain.errors import FieldError, Invalid
from talon.gateway.api.lookup import no_namespace
from talon.gateway.api.permits import forbidden
from talon.gateway.deps import GatewayDeps
from talon.gateway.http.bodies import Body, read_json
from talon.gateway.http.docs import body_doc, doc
from talon.gateway.http.pages import Cursor, Limit
from talon.gateway.http.visit import who_asks
from talon.gateway.http.wire import page, reply
from talon.gateway.times import rfc3339, rfc3339_or_none
from talon.store.access import CredentialRow, LogFilter, LogRow

AUTH = "/v1/auth"
Kind = Annotated[Literal["key", "token", "browser"], Query(description="Which: keys, clients' tokens, or browsers' sessions.")]
Who = Annotated[str, Query(max_length=512, description="Only of this principal, as `key:ID`.")]
Verb = Annotated[str, Query(max_length=64, description="Only with this verb, as `sessions.write`.")]
Outcome = Annotated[str, Query(max_length=64, description="Only with this outcome: `ok`, an error's code, or `!ok`.")]
Namespace = Annotated[
    str, Query(max_length=512, description="Only of this namespace, without those below it. Needed by who is admin of some only.")
]


class GivenRole(Body):
    """A role in a namespace and in all below it; `*` is every namespace."""

    role: Role
    namespace: str


class NewKey(Body):
    """A key to be made."""

    name: str = Field(min_length=1, max_length=NAME_LENGTH_MAX, description="What it is for.")
    grants: list[GivenRole] = Field(min_length=1, description="What it may do, none of it more than you may.")
    ttl_s: int | None = Field(None, ge=1, le=KEY_MAX_S, description="Seconds until it expires; absent: it does not.")


class NewToken(Body):
    """A short-lived token for a client, for one agent or one session of it."""

    namespace: str
    agent: str
    session: str = Field("", description="The only session that it is for; empty: each of the agent.")
    role: Role = Field("operator", description="`viewer` may only look.")
    ttl_s: int = Field(TOKEN_DEFAULT_S, ge=1, le=TOKEN_MAX_S, description="Seconds until it expires, at the latest with you.")
    name: str = Field("", max_length=NAME_LENGTH_MAX)


class Me(msgspec.Struct, frozen=True):
    """Who was recognised. `grants` are ROLE@NAMESPACE; `agent` and `session` narrow a client's token, "" does not. `login`: whether
    browsers can log in with an identity provider. `asked` is false where everybody is let in."""

    id: str
    grants: list[str]
    agent: str
    session: str
    expires_at: str | None
    browser: bool
    asked: bool
    login: bool


class Credential(msgspec.Struct, frozen=True):
    """A key, a client's token or a browser's session, without its secret. `id` names it, also in the access log. `used_at` is no
    more exact than a minute."""

    id: str
    kind: str
    name: str
    grants: list[str]
    agent: str
    session: str
    created_by: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    used_at: str | None


class MadeCredential(msgspec.Struct, frozen=True):
    """A new key or token. `secret` is what `Authorization: Bearer …` takes; it is shown this once."""

    secret: str
    credential: Credential


class LogEntry(msgspec.Struct, frozen=True):
    """One request: who did what to what, from where, and how it went. `outcome` is `ok` or the code of the error."""

    at: str
    who: str
    verb: str
    operation: str
    namespace: str
    object: str
    outcome: str
    request_id: str
    address: str
    via: str


def router(deps: GatewayDeps) -> APIRouter:
    """The routes of access."""
    api = APIRouter(prefix=AUTH, tags=["auth"])
    _me(api, deps)
    _keys(api, deps)
    _log(api, deps)
    return api


def _me(api: APIRouter, deps: GatewayDeps) -> None:
    @api.get("/whoami", operation_id="whoami", summary="Who you are here, and what you may do", responses=doc(Me, 200))
    async def whoami(request: Request) -> Response:
        return reply(me(deps, who_asks(request)))


def me(deps: GatewayDeps, who: Principal) -> Me:
    """A principal as it is shown to himself."""
    return Me(
        id=who.id,
        grants=[text_of(grant) for grant in who.grants],
        agent=who.agent,
        session=who.session,
        expires_at=rfc3339_or_none(who.expires_at_ms),
        browser=who.browser,
        asked=deps.access.authenticator.asks,
        login=deps.access.login is not None,
    )


def _keys(api: APIRouter, deps: GatewayDeps) -> None:
    keys = deps.access.keys

    @api.post(
        "/keys",
        operation_id="createKey",
        status_code=201,
        summary="Make an API key; its secret is shown this once",
        responses=doc(MadeCredential, 201, refused=("namespace_not_found",)),
        openapi_extra=body_doc(NewKey),
    )
    async def create(request: Request) -> Response:
        wanted = await read_json(request, NewKey)
        grants = tuple(Grant(one.role, one.namespace) for one in wanted.grants)
        made = await keys.create(who_asks(request), KeyRequest(wanted.name, grants, wanted.ttl_s))
        return reply(MadeCredential(made.secret, credential(made.row)), 201)

    @api.get(
        "/keys",
        operation_id="listKeys",
        summary="The keys that you may manage, newest first; ended ones too for a while",
        responses=doc(Credential, 200, listed=True, refused=("cursor_invalid",)),
    )
    async def listed(request: Request, kind: Kind = "key", limit: Limit = 50, cursor: Cursor = "") -> Response:
        rows, after = await keys.list(who_asks(request), kind, cursor, limit)
        return page([credential(row) for row in rows], after)

    @api.delete(
        "/keys/{key}",
        operation_id="revokeKey",
        status_code=204,
        summary="End a key, a token or a browser's session, and what was minted with it, at once; also your own",
        responses=doc(None, 204, refused=("key_not_found",)),
    )
    async def revoke(key: str, request: Request) -> Response:
        await keys.revoke(who_asks(request), key)
        return Response(status_code=204)

    @api.post(
        "/tokens",
        operation_id="mintToken",
        status_code=201,
        summary="Make a short-lived token for a client of one agent or session; never wider than you",
        responses=doc(MadeCredential, 201, refused=("namespace_not_found",)),
        openapi_extra=body_doc(NewToken),
    )
    async def mint(request: Request) -> Response:
        wanted = await read_json(request, NewToken)
        made = await keys.mint(
            who_asks(request),
            TokenRequest(wanted.namespace, wanted.agent, wanted.session, wanted.role, wanted.ttl_s, wanted.name),
        )
        return reply(MadeCredential(made.secret, credential(made.row)), 201)


def _log(api: APIRouter, deps: GatewayDeps) -> None:
    @api.get(
        "/log",
        operation_id="listAccessLog",
        summary="Who did what, newest first; kept for 90 days",
        responses=doc(LogEntry, 200, listed=True, refused=("namespace_not_found", "cursor_invalid")),
    )
    async def listed(
        request: Request,
        who: Who = "",
        verb: Verb = "",
        namespace: Namespace = "",
        outcome: Outcome = "",
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> Response:
        asker = who_asks(request)
        if not may(asker, "log.read", namespace):
            if namespace and not sees(asker, namespace):
                raise no_namespace(namespace)
            if namespace:
                raise forbidden("log.read", namespace)
            message = "say which namespace: you are no admin of all"
            raise Invalid("invalid", f"namespace: {message}", (FieldError("namespace", message),))
        rows, after = await deps.access.log.query(LogFilter(who, verb, namespace, outcome), cursor, limit)
        return page([entry(row) for row in rows], after)


def credential(row: CredentialRow) -> Credential:
    """A row as it is shown."""
    return Credential(
        id=row.id,
        kind=row.kind,
        name=row.name,
        grants=[text_of(grant) for grant in decode(row.grants)],
        agent=row.agent,
        session=row.session,
        created_by=row.created_by,
        created_at=rfc3339(row.created_at_ms),
        expires_at=rfc3339_or_none(row.expires_at_ms),
        revoked_at=rfc3339_or_none(row.revoked_at_ms),
        used_at=rfc3339_or_none(row.used_at_ms),
    )


def entry(row: LogRow) -> LogEntry:
    """A row as it is shown."""
    return LogEntry(
        rfc3339(row.at_ms),
        row.who,
        row.verb,
        row.operation,
        row.namespace,
        row.object,
        row.outcome,
        row.request_id,
        row.address,
        row.via,
    )
