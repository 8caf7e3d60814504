"""The keys that signatures are checked with: one that is given, or a set that its owner publishes (JWKS, RFC 7517) and changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Literal, Protocol, cast

import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from talon.access.fetch import Fetch, fetch, unavailable
from talon.domain.errors import Unavailable
from talon.domain.ids import Clock

Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]
RSA_MIN_BITS = 2048
KEYS_MAX = 100
#: A set is read again after this long; one that cannot be had again is used for so long at most.
FRESH_S, USABLE_S = 300.0, 3600.0
#: However many tokens name a key that is not known: the set is asked for no more often.
EVERY_S = 10.0
log = logging.getLogger(__name__)


class Signers(Protocol):
    """The keys of whoever signs."""

    async def find(self, kid: str) -> Any | None:
        """The key of that id, or the only one if none is named; None if there is no such key. It fits the algorithm.

        Raises `Unavailable("identity_unavailable")` when the keys cannot be had."""
        ...


class OneKey:
    """A key that is given. It has no id: whatever a token names, it is this one."""

    def __init__(self, key: Any) -> None:
        self._key = key

    async def find(self, kid: str) -> Any | None:
        """See `Signers.find`."""
        del kid
        return self._key


def public_key(pem: bytes, algorithm: Algorithm) -> Any:
    """The key in a PEM file: a public key, or that of a certificate. Raises `ValueError`, in words for people."""
    try:
        certificate = b"-----BEGIN CERTIFICATE-----" in pem
        key = x509.load_pem_x509_certificate(pem).public_key() if certificate else load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is no public key or certificate in PEM form") from None
    if not fits(key, algorithm):
        raise ValueError(f"has a key that does not sign by {algorithm} (RSA keys: {RSA_MIN_BITS} bits or more)")
    return key


def fits(key: Any, algorithm: Algorithm) -> bool:
    """Whether it is a public key of this algorithm: each key has one, whatever a token says."""
    if algorithm == "RS256":
        return isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_MIN_BITS
    if algorithm == "ES256":
        return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    return algorithm == "EdDSA" and isinstance(key, ed25519.Ed25519PublicKey)


class PublishedKeys:
    """A JWKS at a URL. `changed()` is called when a key that was there is no more."""

    def __init__(self, url: str, algorithm: Algorithm, clock: Clock, changed: Callable[[], None], ask: Fetch | None = None) -> None:
        self._url, self._clock, self._changed = url, clock, changed
        self._algorithm: Algorithm = algorithm
        self._fetch = ask or fetch
        self._keys: dict[str, Any] = {}
        self._read_s: float | None = None
        self._asked_s: float | None = None
        self._asking = asyncio.Lock()

    async def find(self, kid: str) -> Any | None:
        """See `Signers.find`."""
        key = self._known(kid)
        if key is not None and self._age(self._read_s) < FRESH_S:
            return key
        async with self._asking:
            key = self._known(kid)  # whoever had the lock may have brought it
            if (key is None or self._age(self._read_s) >= FRESH_S) and self._age(self._asked_s) >= EVERY_S:
                self._asked_s = self._clock.monotonic_s()
                await self._refresh()
        if self._age(self._read_s) >= USABLE_S:
            raise Unavailable("identity_unavailable", "the keys of whoever signs tokens cannot be had now", retry_after_s=EVERY_S)
        return self._known(kid)

    def _known(self, kid: str) -> Any | None:
        if kid:
            return self._keys.get(kid)
        return next(iter(self._keys.values())) if len(self._keys) == 1 else None

    def _age(self, since_s: float | None) -> float:
        return float("inf") if since_s is None else self._clock.monotonic_s() - since_s

    async def _refresh(self) -> None:
        """Read the set; one that cannot be had leaves the former one as it is."""
        try:
            status, body = await self._fetch("GET", self._url, None, "")
            if status != 200:
                raise unavailable(self._url, f"it answered {status}")
        except Unavailable:
            return
        found = keys_of(body, self._algorithm)
        gone = [kid for kid, key in self._keys.items() if found.get(kid) != key]
        self._keys, self._read_s = found, self._clock.monotonic_s()
        if not found:
            log.warning("identity provider: %s has no key for %s", self._url, self._algorithm)
        if gone:
            self._changed()


def keys_of(body: dict[str, Any], algorithm: Algorithm) -> dict[str, Any]:
    """The keys of a JWKS that sign by this algorithm, by their id. Others, and what is no key, are passed over."""
    listed: object = body.get("keys")
    found: dict[str, Any] = {}
    for number, one in enumerate(cast(list[object], listed)[:KEYS_MAX] if isinstance(listed, list) else []):
        if not isinstance(one, dict):
            continue
        jwk = cast(dict[str, Any], one)
        if jwk.get("use", "sig") != "sig" or jwk.get("alg", algorithm) != algorithm or jwk.get("kty") == "oct":
            continue
        try:
            key: Any = jwt.PyJWK(jwk, algorithm).key
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
        if fits(key, algorithm):
            kid: object = jwk.get("kid")
            found[kid if isinstance(kid, str) and kid else f"\0{number}"] = key
    return found
