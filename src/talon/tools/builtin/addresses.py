"""Which hosts the `http_request` tool may talk to: the public Internet, and what the operator lists.

The rule is about addresses, not names: a name is judged by every address that it resolves to, at the moment of connecting.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import msgspec
from yarl import URL

from talon.domain.errors import FieldError, Invalid

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Host and port -> its addresses: what a resolver needs of the system. Raises `OSError` for a name that does not exist.
Lookup: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")

# IANA's special-purpose registries, written out: the standard library's `is_private` and `is_global` differ between versions.
_SPECIAL_V4: dict[ipaddress.IPv4Network, str] = {
    ipaddress.IPv4Network(network): kind
    for network, kind in {
        "0.0.0.0/8": "unspecified",
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "shared (CGNAT)",
        "127.0.0.0/8": "loopback",
        "169.254.0.0/16": "link-local",
        "172.16.0.0/12": "private",
        "192.0.0.0/24": "reserved",
        "192.0.2.0/24": "documentation",
        "192.88.99.0/24": "6to4 relay",
        "192.168.0.0/16": "private",
        "198.18.0.0/15": "benchmarking",
        "198.51.100.0/24": "documentation",
        "203.0.113.0/24": "documentation",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved",
    }.items()
}
_SPECIAL_V6: dict[ipaddress.IPv6Network, str] = {
    ipaddress.IPv6Network(network): kind
    for network, kind in {
        "::/128": "unspecified",
        "::1/128": "loopback",
        "64:ff9b:1::/48": "local NAT64",
        "100::/64": "discard-only",
        "2001::/23": "reserved",  # Teredo, ORCHID, benchmarking
        "2001:db8::/32": "documentation",
        "3fff::/20": "documentation",
        "fc00::/7": "private",
        "fe80::/10": "link-local",
        "fec0::/10": "site-local",
        "ff00::/8": "multicast",
    }.items()
}
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
# Where an IPv6 address carries an IPv4 one, and how many bits stand to the right of it.
_EMBEDDED_V4: dict[ipaddress.IPv6Network, int] = {
    ipaddress.IPv6Network("::ffff:0:0/96"): 0,  # IPv4-mapped
    ipaddress.IPv6Network("::ffff:0:0:0/96"): 0,  # IPv4-translated
    ipaddress.IPv6Network("64:ff9b::/96"): 0,  # NAT64
    ipaddress.IPv6Network("2002::/16"): 80,  # 6to4
}


def special_kind(address: Address) -> str:
    """What keeps `address` from being a public one (`loopback`, `private`, …); empty if nothing does."""
    if isinstance(address, ipaddress.IPv4Address):
        return next((kind for network, kind in _SPECIAL_V4.items() if address in network), "")
    for network, shift in _EMBEDDED_V4.items():
        if address in network:
            return special_kind(ipaddress.IPv4Address((int(address) >> shift) & 0xFFFF_FFFF))
    kind = next((kind for network, kind in _SPECIAL_V6.items() if address in network), "")
    return kind or ("" if address in _GLOBAL_V6 else "reserved")


async def system_lookup(host: str, port: int) -> list[str]:
    """The addresses that the system's resolver gives, in its order."""
    flags = socket.AI_ADDRCONFIG
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [str(sockaddr[0]) for *_, sockaddr in found]


def literal(host: str) -> Address | None:
    """The address that `host` is, in any notation that a socket understands (`127.1`, `0x7f.1`, `0177.0.0.1`, `2130706433`, `::1`);
    None for a name. Asks no name server."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None
    return ipaddress.ip_address(str(found[0][4][0]).partition("%")[0])


def host_of(url: URL) -> str:
    """The host of an absolute URL in one spelling: an address in its usual form, a name in lower case without a last dot. Raises
    `ValueError` for a host that is neither."""
    host = url.raw_host or ""
    address = literal(host)
    if address is not None:
        return str(address)
    if not _HOST.fullmatch(host) or host.replace(".", "").isdigit():
        raise ValueError(f"{host!r} is not a host name or an address")
    return host.lower().removesuffix(".")


class HostRule(msgspec.Struct, frozen=True):
    """One entry of a host list: a host as `host_of` spells it, and a port or None for any port."""

    host: str
    port: int | None


def host_rules(entries: Sequence[str], field: str) -> tuple[HostRule, ...]:
    """Read `host` and `host:port` entries (IPv6 as `::1` or `[::1]:8080`). Raises `Invalid` naming each wrong entry of `field`."""
    rules: list[HostRule] = []
    errors: list[FieldError] = []
    for index, entry in enumerate(entries):
        try:
            url = URL("http://" + (f"[{entry}]" if entry.count(":") > 1 and not entry.startswith("[") else entry))
            if url.user is not None or url.raw_path not in ("", "/") or url.query_string or url.fragment:
                raise ValueError("only a host and a port")
            rules.append(HostRule(host_of(url), url.explicit_port))
        except ValueError as error:
            errors.append(FieldError(f"{field}[{index}]", f"{entry!r} is not `host` or `host:port`: {error}", entry))
    if errors:
        raise Invalid("invalid", "; ".join(error.message for error in errors), tuple(errors))
    return tuple(rules)


def listed(rules: Sequence[HostRule], host: str, port: int) -> bool:
    """Whether `host` (as `host_of` spells it) at `port` is in the list. Whole hosts only: `acme.com` lists no `x.acme.com`."""
    return any(rule.host == host and rule.port in (None, port) for rule in rules)
