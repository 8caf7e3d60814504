"""TLS for HTTP and gRPC from PEM files that may change while they are used: a certificate is renewed and no connection ends for it.

New connections have what the files hold now. A new file that cannot be used keeps the old one in its place, and the log says so.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any, NamedTuple

from talon.domain.errors import Invalid

#: How often the files are looked at.
LOOK_EVERY_S = 1.0
FILE_MAX_BYTES = 1_048_576
log = logging.getLogger(__name__)


class Pem(NamedTuple):
    """What the files hold, checked: the certificate belongs to the key. `client_ca` None: clients show no certificate."""

    cert: bytes
    key: bytes
    client_ca: bytes | None


class TlsFiles:
    """The files of one server. `pem` is the last content that can be used; `context` serves it, always the newest."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        """Reads them. Raises `Invalid` for one that cannot be read or used."""
        self._files = (cert, key, client_ca)
        self._seen = self._stamp()
        self.pem = self._read()
        self.context: ssl.SSLContext = _Newest(ssl.PROTOCOL_TLS_SERVER)
        self._set(self.pem)

    async def run(self) -> None:
        """Look at the files for ever, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> bool:
        """Take up what has changed; -> whether that was done."""
        seen = await asyncio.to_thread(self._stamp)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            pem = await asyncio.to_thread(self._read)
            self._set(pem)
        except Invalid as error:
            log.error("new certificates cannot be used, the former ones serve on: %s", error.detail)
            return False
        self.pem = pem
        log.info("new connections have the new certificate of gateway.tls")
        return True

    def _set(self, pem: Pem) -> None:
        context = _context(self._files, pem)
        if isinstance(self.context, _Newest):
            self.context.newest = context

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        """What tells one content from another; of a file that is not there nothing."""
        found: list[tuple[int, int, int]] = []
        for path in self._files:
            try:
                stat = path.stat() if path is not None else None
            except OSError:
                stat = None
            found.append((stat.st_mtime_ns, stat.st_ino, stat.st_size) if stat is not None else (0, 0, 0))
        return tuple(found)

    def _read(self) -> Pem:
        cert, key, client_ca = self._files
        return Pem(_bytes("cert", cert), _bytes("key", key), None if client_ca is None else _bytes("client_ca", client_ca))


class _Newest(ssl.SSLContext):
    """A context that serves each new connection by the newest one: event loops hold on to the one that they were started with."""

    newest: ssl.SSLContext

    def wrap_bio(self, *args: Any, **more: Any) -> ssl.SSLObject:
        """See `ssl.SSLContext.wrap_bio`: all that event loops ask of a context for a connection."""
        return self.newest.wrap_bio(*args, **more)


def _context(files: tuple[Path, Path, Path | None], pem: Pem) -> ssl.SSLContext:
    """A server's context. The files are read by OpenSSL itself, which takes a key from a file only."""
    cert, key, client_ca = files
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        raise Invalid("invalid", f"gateway.tls: {cert} and {key} do not go together: {_words(error)}") from None
    except (OSError, ValueError) as error:
        raise Invalid("invalid", f"gateway.tls: {cert} and {key} cannot be used: {error}") from None
    if pem.client_ca is not None:
        try:
            context.load_verify_locations(cadata=pem.client_ca.decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise Invalid("invalid", f"gateway.tls.client_ca: {client_ca} has no certificate in PEM form") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted, and a server cannot ask for its password")


def _words(error: ssl.SSLError) -> str:
    return (error.reason or "unreadable").lower().replace("_", " ")


def _bytes(name: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise Invalid("invalid", f"gateway.tls.{name}: {path} cannot be read: {error.strerror}") from None
    if len(data) > FILE_MAX_BYTES:
        raise Invalid("invalid", f"gateway.tls.{name}: {path} is longer than {FILE_MAX_BYTES} bytes")
    return data
