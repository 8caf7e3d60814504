"""A provider's key that is a secret: read for each call, so that a new value counts from the next one on."""

from __future__ import annotations

from talon.domain.errors import Refused, TalonError
from talon.providers.faults import safe_text
from talon.providers.protocol import Key, ProviderError
from talon.vault.protocol import Reader


def secret_key(reader: Reader, provider: str, namespace: str, name: str, used_by: str) -> Key:
    """The key of `providers.NAME` as the value of a secret. It raises `ProviderError`: `unresolved` where there is no value that
    could be used (no call is made without its key), `connection` while the store cannot be asked."""
    setting = f"providers.{provider}.api_key"

    async def key() -> str:
        try:
            value = await reader.read(namespace, name, used_by, setting)
        except TalonError as error:
            kind = "unresolved" if isinstance(error, Refused) else "connection"
            raise ProviderError(kind, safe_text(f"{setting}: {error.detail}")) from None
        if any(c.isspace() or not c.isprintable() for c in value) or not value.isascii():
            words = f"the value of secret {name!r} of namespace {namespace!r} has a character that no key has: set it again"
            raise ProviderError("unresolved", f"{setting}: {words}")
        return value

    return key
