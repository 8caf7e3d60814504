"""From the settings to the room of access: which modes there are, and that somebody can come in at all."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from talon.access import secret
from talon.access.authenticator import Bearer
from talon.access.grants import encode
from talon.access.lines import Lines
from talon.access.recognised import Recognised
from talon.access.roles import EVERYWHERE, LOCAL, Grant
from talon.access.room import Room, asking_room, open_room
from talon.access.secret import Secret
from talon.cli.errors import WrongUse, found_here, make_data_dir
from talon.cli.settings import Auth, Gateway, Jwt, Tls
from talon.domain.ids import Clock
from talon.observe import logs
from talon.store.access import AccessRows, CredentialRow, NewCredential
from talon.store.protocols import Walls
from talon.store.sight import NO_WALL, Wall

if TYPE_CHECKING:
    from talon.access.oidc import Client
    from talon.access.signers import Algorithm, Signers
    from talon.access.tokens import Verifier
    from talon.gateway.tls import TlsFiles

ADMIN_KEY_FILE = "admin.key"
ACCESS_LINES_FILE = "access.jsonl"
FILE_MAX_BYTES = 65_536
#: So many keys are looked at for one that is alive; the store decides, if none is.
LOOK_AT = 100
_ADMIN = encode((Grant("admin", EVERYWHERE),))
log = logging.getLogger("talon")


def room_of(gateway: Gateway, store: AccessRows, clock: Clock) -> Room:
    """The room that the settings describe. Raises `WrongUse` for a key file that is none."""
    auth, modes = gateway.auth, set(gateway.auth.mode)
    if "none" in modes:
        return open_room(store, clock)
    recognised = Recognised(clock)
    bearers: list[Bearer] = [_verifier(auth.jwt, clock, recognised)] if "jwt" in modes else []
    return asking_room(
        store, clock, recognised, keys="api_key" in modes, bearers=bearers, oidc=_client(auth) if "oidc" in modes else None
    )


def _verifier(jwt: Jwt, clock: Clock, recognised: Recognised) -> Verifier:
    from talon.access.tokens import Rules, Verifier  # all kinds of keys come with it: only where tokens are believed

    if jwt.algorithm is None:
        raise AssertionError("checked by the settings")
    rules = Rules(jwt.algorithm, jwt.issuer, jwt.audience, jwt.skew_s, jwt.grants_claim)
    return Verifier(rules, _signers(jwt, jwt.algorithm, clock, recognised), clock)


def _signers(jwt: Jwt, algorithm: Algorithm, clock: Clock, recognised: Recognised) -> Signers:
    from talon.access.signers import OneKey, PublishedKeys, public_key

    if jwt.secret is not None:
        return OneKey(jwt.secret.get_secret_value().encode())
    if jwt.jwks_url is not None:
        return PublishedKeys(jwt.jwks_url, algorithm, clock, lambda: recognised.forget(""))
    file = jwt.key_file or Path()
    try:
        return OneKey(public_key(_read(file), algorithm))
    except OSError as error:
        raise WrongUse(f"gateway.auth.jwt.key_file: {file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise WrongUse(f"gateway.auth.jwt.key_file: {file} {error}") from None


def _client(auth: Auth) -> Client:
    from talon.access.oidc import Client

    oidc = auth.oidc
    return Client(
        issuer=oidc.issuer or "",
        client_id=oidc.client_id,
        client_secret=oidc.client_secret.get_secret_value() if oidc.client_secret else "",
        algorithm=oidc.algorithm,
        scopes=oidc.scopes,
        grants_claim=oidc.grants_claim,
        session_max_s=auth.session_max_s,
    )


async def wall_of(auth: Auth, store: Walls) -> Wall:
    """The second wall of the settings, put up. Says so where it should stand and cannot. Raises `WrongUse` where it must stand."""
    if "none" in auth.mode or auth.row_level_security == "off":
        return NO_WALL
    wall = await store.raise_wall()
    if wall.stands:
        log.info("row-level security is on: callers' reads are done with the role %s", wall.role)
        return wall
    if auth.row_level_security == "required":
        missing = wall.missing or "SQLite has none: it needs PostgreSQL"
        raise WrongUse(f"gateway.auth.row_level_security is required, and cannot be put up: {missing}")
    if wall.missing:
        log.warning("row-level security is missing, the gateway's own checks stand alone: %s", wall.missing)
    return wall


def lines_of(gateway: Gateway, data_dir: Path) -> Lines | None:
    """Where the access log also goes, line by line; None for nowhere. Raises `WrongUse` where it has no directory."""
    if gateway.access_lines == "none" or "none" in gateway.auth.mode:
        return None
    if gateway.access_lines == "stderr":
        return Lines(lambda: os.fdopen(os.dup(sys.stderr.fileno()), "ab"))
    file = data_dir / ACCESS_LINES_FILE
    make_data_dir(data_dir)  # nothing else may need it, on PostgreSQL
    return Lines(lambda: os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab"))


def tls_of(files: Tls) -> TlsFiles | None:
    """Certificate and key, if there are any. Raises `WrongUse` for files that cannot be used."""
    cert, key, client_ca = files.cert, files.key, files.client_ca
    if cert is None or key is None:
        return None
    from talon.gateway.tls import TlsFiles

    with found_here():
        return TlsFiles(cert, key, client_ca)


async def first_key(auth: Auth, data_dir: Path, store: AccessRows, clock: Clock) -> None:
    """See that somebody can come in by key: with the given one, or with one that is made now, where no key is alive.

    Says which, never the key. Raises `WrongUse` for a given key whose id another one has, and for a directory that takes no file.
    """
    if "api_key" not in auth.mode:
        return
    if auth.bootstrap_key is not None:
        await _given(auth.bootstrap_key.get_secret_value(), store)
        return
    keys, _ = await store.list_credentials("key", "", LOOK_AT)
    if any(_alive(row, clock.now_ms()) for row in keys):
        return
    file = data_dir / ADMIN_KEY_FILE
    made = _kept(file)
    if made is None or await store.get_credential(made.id) is not None:  # none there, or one that has ended
        made = _written(file)
    if await store.add_credential(_admin(made, "the first key", if_first=True)) is None:
        file.unlink()  # another process was first, and has it in a file of its own
        return
    log.info("the first admin key was made: it is in %s (`talon auth login < %s`)", file, file)


def _alive(row: CredentialRow, now_ms: int) -> bool:
    return row.revoked_at_ms is None and (row.expires_at_ms is None or now_ms < row.expires_at_ms)


async def _given(text: str, store: AccessRows) -> None:
    made = secret.parse(text)
    if made is None:
        raise AssertionError("checked by the settings")
    if await store.add_credential(_admin(made, "gateway.auth.bootstrap_key")) is not None:
        log.info("the admin key %s of gateway.auth.bootstrap_key was taken up", made.id)
        return
    row = await store.get_credential(made.id)
    if row is None or row.digest != made.digest:
        raise WrongUse(f"gateway.auth.bootstrap_key: there is another key of the id {made.id}: take another id")
    if row.revoked_at_ms is not None:
        log.warning("gateway.auth.bootstrap_key: the key %s was revoked and stays so; take it out of the settings", made.id)


def _admin(made: Secret, name: str, *, if_first: bool = False) -> NewCredential:
    return NewCredential(made.id, "key", made.digest, _ADMIN, LOCAL.id, name=name, if_first=if_first, places=(EVERYWHERE,))


def _kept(file: Path) -> Secret | None:
    """The key in the file, if there is one: of a process that died before the store had it, or after it had ended."""
    try:
        found = secret.parse(_read(file).decode("ascii", "replace").strip())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WrongUse(f"data_dir: {file} cannot be read: {error.strerror}") from None
    if found is not None:
        logs.hide(found.text)
    return found


def _written(file: Path) -> Secret:
    """A new key, in the file before it is anywhere else: whoever dies in between goes on with it."""
    made = secret.generate()
    logs.hide(made.text)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as out:
            out.write(made.text.encode() + b"\n")
            out.flush()
            os.fsync(handle)
    except OSError as error:
        raise WrongUse(f"data_dir: {file} cannot be written: {error.strerror}") from None
    return made


def _read(file: Path) -> bytes:
    with file.open("rb") as handle:
        return handle.read(FILE_MAX_BYTES)
