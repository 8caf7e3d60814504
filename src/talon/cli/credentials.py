"""What commands show a server of themselves: a key or token per server, in a file of the user's alone, and certificates."""

from __future__ import annotations

import json
import os
import ssl
from pathlib import Path
from typing import Any, cast

from talon.cli.errors import WrongUse

KEY_ENV = "TALON_API_KEY"
#: PEM files: whom to trust beside whom the system trusts, and the certificate with its key that this side shows.
CA_ENV, CERT_ENV, CERT_KEY_ENV = "TALON_CA_FILE", "TALON_CERT_FILE", "TALON_KEY_FILE"
#: Longer is no key and no token.
SECRET_MAX = 16_000
FILE_MAX_BYTES = 1_048_576


def path() -> Path:
    """`$XDG_CONFIG_HOME/talon/credentials.json`, by default below `~/.config`."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "talon" / "credentials.json"


def authorization(server: str) -> str:
    """The value of `Authorization` for `server`: of `TALON_API_KEY`, else what `talon auth login` stored for exactly this server;
    "" if there is none."""
    given = os.environ.get(KEY_ENV, "").strip()
    if given:
        return f"Bearer {checked(given, KEY_ENV)}"
    stored = _read().get(_name(server), "")
    return f"Bearer {stored}" if stored else ""


def tls(server: str) -> ssl.SSLContext | None:
    """Whom to trust and what to show, if the environment says so and the server is asked over TLS. Raises `WrongUse`."""
    ca, cert, key = (os.environ.get(name) or None for name in (CA_ENV, CERT_ENV, CERT_KEY_ENV))
    if not server.startswith("https://") or (ca is None and cert is None):
        return None
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise WrongUse(f"{CA_ENV}: {ca} has no certificates that can be read: {_words(error)}") from None
    if cert is not None:
        try:
            context.load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            raise WrongUse(f"{CERT_ENV}, {CERT_KEY_ENV}: {cert} and {key or 'its key'}: {_words(error)}") from None
    return context


def store(server: str, secret: str) -> Path:
    """Keep `secret` for `server`; -> the file. Others keep what they have."""
    return _write({**_read(), _name(server): secret})


def forget(server: str) -> bool:
    """Keep nothing for `server` any more; -> whether there was something."""
    known = _read()
    if known.pop(_name(server), None) is None:
        return False
    _write(known)
    return True


def checked(text: str, where: str) -> str:
    """A key or token that can stand in a header. Raises `WrongUse`, which does not show it."""
    if not text or len(text) > SECRET_MAX or not text.isascii() or not text.isprintable() or " " in text:
        raise WrongUse(f"{where}: no key or token: expected one line, as talon_ID_SECRET")
    return text


def _name(server: str) -> str:
    return server.rstrip("/").lower()


def _read() -> dict[str, str]:
    file = path()
    try:
        with file.open("rb") as handle:
            if os.fstat(handle.fileno()).st_mode & 0o077:
                raise WrongUse(
                    f"{file} can be read by others: run `chmod 600 {file}`, and make new keys if somebody may have read it"
                )
            found: Any = json.loads(handle.read(FILE_MAX_BYTES))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise WrongUse(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise WrongUse(f"{file} is damaged: delete it, and log in again with `talon auth login`") from None
    servers: object = cast(dict[str, Any], found).get("servers") if isinstance(found, dict) else None
    if not isinstance(servers, dict):
        raise WrongUse(f"{file} is damaged: delete it, and log in again with `talon auth login`")
    known = cast(dict[str, Any], servers)
    return {name: checked(str(secret), str(file)) for name, secret in known.items()}


def _write(servers: dict[str, str]) -> Path:
    """Whole, into a new file that takes the old one's place."""
    file = path()
    new = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.fchmod(handle, 0o600)
            os.write(handle, json.dumps({"servers": servers}, indent=2).encode() + b"\n")
        finally:
            os.close(handle)
        new.replace(file)
    except OSError as error:
        raise WrongUse(f"{file} cannot be written: {error.strerror}") from None
    return file


def _words(error: OSError) -> str:
    return error.strerror or str(getattr(error, "reason", "")) or type(error).__name__
