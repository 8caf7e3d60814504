"""Making, listing and ending keys, clients' tokens and browser sessions. Who may give what is decided here, by `roles` alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from talon.access import secret
from talon.access.grants import checked, decode, encode, text_of
from talon.access.protocol import (
    GRANTS_MAX,
    KEY_MAX_S,
    NAME_LENGTH_MAX,
    TOKEN_MAX_S,
    KeyRequest,
    Minted,
    TokenRequest,
)
from talon.access.roles import EVERYWHERE, Grant, Principal, Verb, may, narrower, roots, sees
from talon.domain.errors import FieldError, Forbidden, Invalid, NotFound, Unauthenticated
from talon.domain.ids import Clock, is_name
from talon.store.access import AccessRows, CredentialKind, CredentialRow, NewCredential

MANAGE: Verb = "keys.manage"
SECOND_MS = 1000


class StoredKeys:
    """`talon.access.protocol.Keys` on a store. `revoked` is told, before a revocation is answered."""

    def __init__(self, store: AccessRows, clock: Clock, revoked: Callable[[str], None]) -> None:
        self._store, self._clock, self._revoked = store, clock, revoked

    async def create(self, by: Principal, new: KeyRequest) -> Minted:
        """See `Keys.create`."""
        wrong = [*_name(new.name, needed=True), *_ttl(new.ttl_s, KEY_MAX_S), *_grants(new.grants)]
        _refuse(wrong)
        for grant in new.grants:
            _may_give(by, grant, MANAGE)
        return await self._add(by, "key", new.name, new.grants, new.ttl_s, parent="")

    async def mint(self, by: Principal, new: TokenRequest) -> Minted:
        """See `Keys.mint`."""
        wrong = [*_name(new.name, needed=False), *_ttl(new.ttl_s, TOKEN_MAX_S)]
        wrong += [FieldError("agent", "expected the name of an agent", new.agent)] if not is_name(new.agent) else []
        wrong += [FieldError("session", "too long", new.session[:80])] if len(new.session) > NAME_LENGTH_MAX else []
        try:
            grant = checked(new.role, new.namespace)
        except ValueError as error:
            _refuse([*wrong, FieldError("namespace", str(error), new.namespace[:80])])
            raise
        if grant.namespace == EVERYWHERE:
            wrong.append(FieldError("namespace", "a client's token is for one namespace", EVERYWHERE))
        _refuse(wrong)
        _may_give(by, grant, "tokens.mint")
        ttl_s = new.ttl_s
        if by.expires_at_ms is not None:
            ttl_s = min(ttl_s, max(1, (by.expires_at_ms - self._clock.now_ms()) // SECOND_MS))
        return await self._add(by, "token", new.name, (grant,), ttl_s, parent=by.via, agent=new.agent, session=new.session)

    async def browse(self, by: Principal, ttl_s: int) -> Minted:
        """See `Keys.browse`."""
        if not by.via:
            raise Forbidden("forbidden", "a browser's session stands on a key or token of this server")
        return await self._add(by, "browser", "", by.grants, ttl_s, parent=by.via, agent=by.agent, session=by.session)

    async def _add(
        self,
        by: Principal,
        kind: CredentialKind,
        name: str,
        grants: Sequence[Grant],
        ttl_s: int | None,
        parent: str,
        agent: str = "",
        session: str = "",
    ) -> Minted:
        made = secret.generate()
        new = NewCredential(
            id=made.id,
            kind=kind,
            digest=made.digest,
            grants=encode(grants),
            created_by=by.id,
            name=name,
            agent=agent,
            session=session,
            parent=parent,
            ttl_ms=None if ttl_s is None else ttl_s * SECOND_MS,
            places=tuple(grant.namespace for grant in grants),
        )
        row = await self._store.add_credential(new)
        if row is None:
            raise Unauthenticated("unauthenticated", "what you showed was revoked or has expired meanwhile")
        return Minted(made.text, row)

    async def list(self, by: Principal, kind: CredentialKind, cursor: str, limit: int) -> tuple[list[CredentialRow], str]:
        """See `Keys.list`."""
        places = [grant.namespace for grant in by.grants if may(by, MANAGE, grant.namespace)]
        within = None if EVERYWHERE in places else roots(places)
        return await self._store.list_credentials(kind, cursor, limit, within)

    async def revoke(self, by: Principal, credential: str) -> CredentialRow:
        """See `Keys.revoke`."""
        row = await self._store.get_credential(credential)
        if row is None or not (manages(by, row) or owns(by, row)):
            raise not_found(credential)
        ended = await self._store.revoke_credential(credential)
        if ended is None:
            raise not_found(credential)
        self._revoked(credential)
        return ended


def manages(who: Principal, row: CredentialRow) -> bool:
    """Whether everything that `row` reaches is in namespaces whose keys he manages. One that reaches nothing is for those who
    manage the whole installation."""
    return all(may(who, MANAGE, grant.namespace) for grant in decode(row.grants) or (Grant("viewer", EVERYWHERE),))


def owns(who: Principal, row: CredentialRow) -> bool:
    """Whether it is what he showed, or was minted with it."""
    return bool(who.via) and who.via in (row.id, row.parent)


def not_found(credential: str) -> NotFound:
    """No such key, or not for you."""
    return NotFound(
        "key_not_found", f"there is no key, token or browser session {credential[:80]!r}; `talon auth key list` shows them"
    )


def _may_give(by: Principal, grant: Grant, verb: Verb) -> None:
    if grant.namespace != EVERYWHERE and not sees(by, grant.namespace):
        raise NotFound("namespace_not_found", f"there is no namespace {grant.namespace!r}")
    if by.scoped or not may(by, verb, grant.namespace):
        raise Forbidden("forbidden", f"{verb} in namespace {grant.namespace!r} is not yours: ask an admin of it")
    if not narrower(grant, by):
        raise Forbidden("forbidden", f"{text_of(grant)} is more than you have: nobody gives what he does not have")


def _name(name: str, *, needed: bool) -> list[FieldError]:
    if (not name and not needed) or (0 < len(name) <= NAME_LENGTH_MAX and name.isprintable()):
        return []
    return [FieldError("name", f"expected 1 to {NAME_LENGTH_MAX} printable characters that say what it is for", name[:80])]


def _ttl(ttl_s: int | None, most: int) -> list[FieldError]:
    return [] if ttl_s is None or 1 <= ttl_s <= most else [FieldError("ttl_s", f"expected 1 to {most} seconds", ttl_s)]


def _grants(grants: Sequence[Grant]) -> list[FieldError]:
    if not 1 <= len(grants) <= GRANTS_MAX:
        return [FieldError("grants", f"expected 1 to {GRANTS_MAX} grants, each a role in a namespace")]
    wrong: list[FieldError] = []
    for number, grant in enumerate(grants):
        try:
            checked(grant.role, grant.namespace)
        except ValueError as error:
            wrong.append(FieldError(f"grants[{number}]", str(error)))
    return wrong


def _refuse(wrong: Sequence[FieldError]) -> None:
    if wrong:
        raise Invalid("invalid", "; ".join(f"{one.field}: {one.message}" for one in wrong[:3]), tuple(wrong))
