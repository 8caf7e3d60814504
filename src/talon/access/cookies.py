"""The cookies that browsers hold: no script reads them, and over TLS they are of this very host alone."""

from __future__ import annotations

from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie

#: Of a browser's session: over TLS, and without it (loopback). The prefix makes browsers keep it for this host and path alone.
SESSION = ("__Host-talon", "talon")


def made(origin: str, value: str, max_age_s: int, names: Sequence[str] = SESSION) -> str:
    """A `Set-Cookie` value. The first of `names` where `origin` is encrypted; else the last, which may be sent in clear.

    `Lax`: a page of another site that leads here sends it, one that posts or loads from there does not.
    """
    secure = origin.startswith("https://")
    flags = "; Secure" if secure else ""
    return f"{names[0 if secure else -1]}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{flags}"


def ended(names: Sequence[str] = SESSION) -> tuple[str, ...]:
    """The `Set-Cookie` values that take all of `names` away."""
    return tuple(made("https://" if name.startswith("__Host-") else "", "", 0, (name,)) for name in names)


def read(header: str, names: Sequence[str] = SESSION) -> str:
    """The value of the first of these cookies that a Cookie header has; "" if none, or if it cannot be read."""
    try:
        found = SimpleCookie(header)
    except CookieError:
        return ""
    return next((found[name].value for name in names if name in found), "")
