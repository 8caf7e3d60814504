"""An HTTP answer as text for a model: status line, the headers that matter, and the body as far as it is text."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping

import msgspec

#: The headers that a model may have a use for; never cookies.
SHOWN_HEADERS = (
    "content-type",
    "content-language",
    "location",
    "etag",
    "last-modified",
    "retry-after",
    "link",
    "allow",
    "www-authenticate",
    "x-request-id",
    "ratelimit",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
)
_HEADER_MAX = 500
_TEXT_TYPES = re.compile(
    r"text/.*|.*\+(json|xml|yaml)|application/(.*json|xml|javascript|ecmascript|.*yaml|toml|x-www-form-urlencoded|graphql|sql|rtf)"
)
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_NO_CHARSETS = frozenset({"unicode-escape", "raw-unicode-escape", "punycode", "idna", "undefined"})
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)


class Answer(msgspec.Struct, frozen=True):
    """One HTTP answer. `headers` have lower-case names. `body` is at most the size limit; `notes` say what is not whole in it."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    url: str = ""  # where the answer came from, if that is not where the request went
    notes: tuple[str, ...] = ()


def render(answer: Answer) -> str:
    """The answer as text."""
    lines = [f"HTTP {answer.status} {answer.reason}".rstrip()]
    if answer.url:
        lines.append(f"url: {answer.url}")
    lines += [f"{name}: {answer.headers[name][:_HEADER_MAX]}" for name in SHOWN_HEADERS if name in answer.headers]
    body = decode(answer.body, answer.headers.get("content-type", "")) if answer.body else ""
    parts = ["\n".join(lines), *([body] if body else []), *[f"[{note}]" for note in answer.notes]]
    return "\n\n".join(parts)


def decode(body: bytes, content_type: str) -> str:
    """A body as text: by byte order mark, declared charset, an HTML page's own declaration, or what its bytes are. What is not text
    is said to be binary, with type and size. Never fails: bytes that do not fit become U+FFFD."""
    media, _, parameters = content_type.partition(";")
    media = media.strip().lower()
    declared = re.search(r"charset\s*=\s*[\"']?([^\s\"';]+)", parameters, re.IGNORECASE)
    known_text = _TEXT_TYPES.fullmatch(media) is not None or declared is not None
    if not known_text and not (media in ("", "application/octet-stream", "binary/octet-stream") and _looks_like_text(body)):
        return f"(binary body, {media or 'type unknown'}, {len(body)} bytes, not shown)"
    return body.decode(_charset(body, declared[1] if declared else "", media), "replace")


def _looks_like_text(body: bytes) -> bool:
    return b"\0" not in body and _is_utf8(body)


def _is_utf8(body: bytes) -> bool:
    """Whether it is UTF-8, perhaps cut within its last character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(body, final=False)
    except UnicodeDecodeError:
        return False
    return True


def _charset(body: bytes, declared: str, media: str) -> str:
    for bom, charset in _BOMS:
        if body.startswith(bom):
            return charset
    meta = _META_CHARSET.search(body[:1024]) if "html" in media else None
    for name in (declared, meta[1].decode("ascii") if meta else ""):
        if name and _is_text_codec(name):
            return name
    return "utf-8" if _is_utf8(body) else "cp1252"


def _is_text_codec(name: str) -> bool:
    """Whether `name` is a charset; Python also has codecs for bytes (`hex`) and for its own source (`unicode_escape`)."""
    try:
        return codecs.lookup(name).name not in _NO_CHARSETS and isinstance(b"a".decode(name, "replace"), str)
    except (LookupError, ValueError):
        return False
