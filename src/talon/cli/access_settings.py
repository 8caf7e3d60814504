"""What settings of access must say together: each mode has what it needs, and nobody listens to the world and asks no names."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from talon.access.secret import EXPECTED, parse
from talon.cli.settings import Gateway, Jwt, Oidc, Tls

HMAC_MIN_BYTES = 32
#: Where a setting was said, for the end of a message: ` (talon.yaml line 7)`; empty for a default.
Where = Callable[[str], str]


def mistakes(gateway: Gateway, where: Where) -> Iterator[str]:
    """One line per mistake; no secret is in any."""
    auth, mode = gateway.auth, gateway.auth.mode
    at = where("gateway.auth.mode")
    if not mode or len(set(mode)) < len(mode):
        yield f"gateway.auth.mode: expected none, or each of api_key, jwt and oidc at most once{at}"
    if "none" in mode and len(mode) > 1:
        yield f"gateway.auth.mode: none stands alone: take it away, or the others{at}"
    for name, host in _hosts(gateway):
        if "none" in mode and not is_loopback(host):
            yield (
                f"{name}: {host!r} can be reached from other machines, and nobody is asked who he is: "
                f"set gateway.auth.mode to api_key (or jwt, oidc), or listen on 127.0.0.1{where(name)}"
            )
    if auth.bootstrap_key is not None and parse(auth.bootstrap_key.get_secret_value()) is None:
        path = "gateway.auth.bootstrap_key"
        yield f"{path}: the value (hidden) does not fit: expected {EXPECTED}{where(path)}"
    if "jwt" in mode:
        yield from _jwt(auth.jwt, where)
    if "oidc" in mode:
        yield from _oidc(auth.oidc, where)
    yield from _tls(gateway.tls, where)


def warnings(gateway: Gateway) -> Iterator[str]:
    """What works, and had better be otherwise."""
    for name, host in _hosts(gateway):
        if not is_loopback(host) and gateway.tls.cert is None:
            yield (
                f"{name} = {host!r} without gateway.tls: keys, tokens and messages cross the network unencrypted, "
                "unless a proxy that speaks TLS stands before it"
            )


def _hosts(gateway: Gateway) -> Iterator[tuple[str, str]]:
    """The addresses that are listened on."""
    yield "gateway.host", gateway.host
    if gateway.grpc and gateway.grpc_host:
        yield "gateway.grpc_host", gateway.grpc_host


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _jwt(jwt: Jwt, where: Where) -> Iterator[str]:
    prefix, needed = "gateway.auth.jwt", "gateway.auth.mode has jwt, which needs it"
    if jwt.algorithm is None:
        yield f"{prefix}.algorithm: not given; {needed}: HS256, RS256, ES256 or EdDSA, as the tokens are signed"
    if not jwt.issuer:
        yield f"{prefix}.issuer: not given; {needed}: what the tokens' `iss` is"
    if not jwt.audience:
        yield f"{prefix}.audience: not given; {needed}: a token for another service must not count here"
    keys = {"secret": jwt.secret, "key_file": jwt.key_file, "jwks_url": jwt.jwks_url}
    given = [name for name, value in keys.items() if value is not None]
    wanted = ["secret"] if jwt.algorithm == "HS256" else ["key_file", "jwks_url"]
    if jwt.algorithm is not None and (len(given) != 1 or given[0] not in wanted):
        said = ", ".join(f"{prefix}.{name}{where(f'{prefix}.{name}')}" for name in given) or "none"
        yield f"{prefix}: {jwt.algorithm} needs exactly one of {', '.join(f'{prefix}.{name}' for name in wanted)}; given: {said}"
    if jwt.secret is not None and len(jwt.secret.get_secret_value().encode()) < HMAC_MIN_BYTES:
        at = where(f"{prefix}.secret")
        yield f"{prefix}.secret: the value (hidden) is shorter than {HMAC_MIN_BYTES} bytes and can be guessed{at}"
    if jwt.jwks_url is not None:
        yield from _encrypted(f"{prefix}.jwks_url", jwt.jwks_url, where)


def _oidc(oidc: Oidc, where: Where) -> Iterator[str]:
    prefix, needed = "gateway.auth.oidc", "gateway.auth.mode has oidc, which needs it"
    if oidc.issuer is None:
        yield f"{prefix}.issuer: not given; {needed}"
    else:
        yield from _encrypted(f"{prefix}.issuer", oidc.issuer, where)
    if not oidc.client_id:
        yield f"{prefix}.client_id: not given; {needed}: the identity provider gives it to you"


def _encrypted(path: str, url: str, where: Where) -> Iterator[str]:
    parts = urlsplit(url)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        yield f"{path}: {url!r} is not encrypted: who stands on the way could put his own keys there; use https://{where(path)}"


def _tls(tls: Tls, where: Where) -> Iterator[str]:
    if (tls.cert is None) != (tls.key is None):
        there, missing = ("cert", "key") if tls.key is None else ("key", "cert")
        yield f"gateway.tls.{missing}: not given, and gateway.tls.{there} is{where(f'gateway.tls.{there}')}: TLS needs both"
    if tls.client_ca is not None and tls.cert is None:
        yield f"gateway.tls.client_ca: needs gateway.tls.cert and gateway.tls.key{where('gateway.tls.client_ca')}"
