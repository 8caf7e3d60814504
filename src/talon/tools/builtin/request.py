"""What the model asks of `http_request`, checked and ready to send; and what a redirect makes of it. Nothing is sent here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from yarl import URL

from talon.tools.builtin.addresses import host_of, literal
from talon.tools.protocol import ToolError

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
READS = frozenset({"GET", "HEAD"})
KEY_HEADER = "Idempotency-Key"
URL_MAX = 8_192
HEADERS_MAX = 16_384  # characters, names and values together

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
# Those that steer the connection, and those that are ours to say.
_REFUSED_HEADERS = frozenset(
    {
        *("host", "idempotency-key", "content-length", "accept-encoding", "expect"),
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
        *("proxy-authenticate", "proxy-authorization"),
    }
)
# All that goes along to another origin: whatever else the model sets may be a credential.
_HARMLESS_HEADERS = frozenset({"accept", "accept-language", "content-type", "user-agent"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Request(msgspec.Struct, frozen=True):
    """One HTTP request. `url` is absolute, its host in the spelling of `host_of`; `body` None means none."""

    method: str
    url: URL
    headers: dict[str, str]
    body: bytes | None = None

    @property
    def is_read(self) -> bool:
        return self.method in READS


def parse_url(text: str) -> URL:
    """An http or https URL with a host, no user name, and the host in one spelling. Raises `ToolError`."""
    if len(text) > URL_MAX:
        raise ToolError(f"the URL has {len(text)} characters, at most {URL_MAX} are allowed")
    try:
        return _checked(URL(text.strip()))
    except ValueError as error:
        raise ToolError(f"{text!r} is not a URL: {error}") from None


def _checked(url: URL) -> URL:
    if url.scheme not in ("http", "https"):
        raise ToolError(f"only http and https URLs can be requested, and with a host: {str(url)!r}")
    if url.user is not None or url.password is not None:
        raise ToolError("a URL with a user name or password is refused; give an Authorization header if the user wants that")
    host = host_of(url)
    # Another notation of an address (2130706433, 0x7f.1) goes on in its usual form, which is the one that is judged.
    return url.with_host(host) if literal(url.raw_host or "") is not None else url


def build(args: Mapping[str, Any]) -> Request:
    """The request that the arguments describe (they fit the schema). Raises `ToolError` for what is refused."""
    method: str = args.get("method", "GET")
    body: str = args.get("body", "")
    if method in READS and body:
        raise ToolError(f"a {method} request has no body")
    headers = dict(args.get("headers") or {})
    _check_headers(headers)
    data = body.encode() or None
    if data and "content-type" not in {name.lower() for name in headers}:
        headers["Content-Type"] = _content_type(body)
    return Request(method, parse_url(args["url"]), headers, data)


def _check_headers(headers: Mapping[str, str]) -> None:
    seen: set[str] = set()
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ToolError(f"{name!r} cannot be the name of a header")
        if name.lower() in _REFUSED_HEADERS:
            raise ToolError(f"header {name!r} cannot be set: it belongs to the connection, or is set by Talon")
        if name.lower() in seen:
            raise ToolError(f"header {name!r} is given twice")
        if not _VALUE.fullmatch(value):
            raise ToolError(f"the value of header {name!r} has a line break or another control character")
        seen.add(name.lower())
    if sum(len(name) + len(value) for name, value in headers.items()) > HEADERS_MAX:
        raise ToolError(f"the headers have more than {HEADERS_MAX} characters")


def _content_type(body: str) -> str:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return "text/plain; charset=utf-8"
    return "application/json"


def redirected(request: Request, status: int, location: str) -> Request | None:
    """The request that an answer of `status` with `location` asks for; None if it asks for none. Raises `ToolError`, saying why,
    for one that must not be made.

    As browsers do: 303, and 301 and 302 to a POST, turn into a GET without body; 307 and 308 repeat the request. A request that
    may change something is repeated at the same origin only: its effect class was decided by its host. To another
    origin no header goes along that may be a credential.
    """
    if status not in _REDIRECTS or not location:
        return None
    try:
        url = _checked(request.url.join(URL(location)))
    except ValueError as error:
        raise ToolError(f"{location!r} is not a URL: {error}") from None
    same_origin = url.origin() == request.url.origin()
    headers = {name: value for name, value in request.headers.items() if same_origin or name.lower() in _HARMLESS_HEADERS}
    becomes_get = (status == 303 and request.method != "HEAD") or (status in (301, 302) and request.method == "POST")
    if becomes_get:
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
        return Request("GET", url, headers)
    if not request.is_read and not same_origin:
        raise ToolError(f"a {request.method} is not repeated at another origin ({url.origin()})")
    return Request(request.method, url, headers, request.body)
