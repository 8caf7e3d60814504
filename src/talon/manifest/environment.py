"""Knowledge, MCP servers, their bindings and secrets as they may be written."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Discriminator, Field, Tag, WithJsonSchema

from talon.manifest.document import Complaint
from talon.manifest.fields import LIST_MAX, TEXT_MAX, Duration, Given, Matching, Name, Part, SecretRef, Text, Word, Words, wrong

#: The longest value of a Secret, in UTF-8 bytes.
SECRET_MAX_BYTES: Final = 64 * 1024
VALUES_MAX: Final = 100
URL_MAX: Final = 2048
_VALUE_MAX: Final = 32 * 1024
_LATIN: Final = re.compile(r"[\x20-\x7e]*")


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise wrong("url", "is no URL: {why}", why=str(error)) from None
    if parts.scheme not in ("http", "https") or not host:
        raise wrong("url", "is no URL with a host: write https://… or http://…")
    if not text.isascii() or any(char <= " " or char == "\x7f" for char in text):
        raise wrong("url", "may hold visible ASCII characters only; encode others (%C3%A4, xn--…)")
    if parts.username is not None or parts.password is not None:
        raise wrong("url", "holds a user or password, which everybody could read; use a header with a secretRef")
    return text


def _header_value(text: str) -> str:
    if _LATIN.fullmatch(text) is None:
        raise wrong("header", "may hold visible ASCII characters and spaces only: it is sent as a header")
    return text


def _form(value: Any) -> str:
    return "ref" if isinstance(value, dict | SecretRef) else "text"


Url = Annotated[
    str,
    Field(min_length=1, max_length=URL_MAX),
    AfterValidator(_url),
    WithJsonSchema({"type": "string", "format": "uri", "pattern": "^https?://", "maxLength": URL_MAX}),
]
EnvName = Annotated[
    str, Matching("[A-Za-z_][A-Za-z0-9_]{0,127}", "is no name of a variable: letters, digits and _, not beginning with a digit")
]
HeaderName = Annotated[
    str, Matching("[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", "is no name of a header: letters, digits and -, at most 128")
]
DocumentName = Annotated[
    str,
    Matching(
        "[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?",
        "is no document name: letters, digits, '.', '_' and '-', at most 128, a letter or digit at both ends; no path",
    ),
]
EnvValue = Annotated[
    Annotated[Annotated[str, Field(max_length=_VALUE_MAX)], Tag("text")] | Annotated[SecretRef, Tag("ref")], Discriminator(_form)
]
HeaderValue = Annotated[
    Annotated[Annotated[str, Field(max_length=_VALUE_MAX), AfterValidator(_header_value)], Tag("text")]
    | Annotated[SecretRef, Tag("ref")],
    Discriminator(_form),
]


class KnowledgeDocument(Part):
    """One document: its text here, or where it is to be read."""

    name: DocumentName = Field(description="Unique in this Knowledge: letters, digits, '.', '_' and '-'; no path.")
    description: str = Field(default="", max_length=TEXT_MAX, description="What it is about; agents choose by it.")
    content: Given[Text] = Field(default=None, description="The text; or a url.")
    url: Given[Url] = Field(default=None, description="Where the text is read; or a content.")


class KnowledgeSpec(Part):
    """Documents that agents of the namespace, and of those in it, may know."""

    description: str = Field(default="", max_length=TEXT_MAX, description="What they are about.")
    documents: Annotated[list[KnowledgeDocument], Field(min_length=1, max_length=LIST_MAX)] = Field(description="The documents.")


class ToolFilter(Part):
    """Which of a server's tools there are for agents."""

    allow: Given[Words] = Field(default=None, description="These and no others; absent: all.")
    deny: Given[Words] = Field(default=None, description="These never.")


class McpServerSpec(Part):
    """A server of the Model Context Protocol, and how it is reached."""

    description: str = Field(default="", max_length=TEXT_MAX, description="For people.")
    transport: Literal["stdio", "http"] = Field(description="A program that is started, or an address.")
    command: Given[Word] = Field(default=None, description="The program; for stdio, and only there.")
    args: Given[Annotated[list[Annotated[str, Field(max_length=_VALUE_MAX)]], Field(max_length=LIST_MAX)]] = Field(
        default=None, description="Its arguments, each as it is: no shell reads them."
    )
    env: Given[Annotated[dict[EnvName, EnvValue], Field(max_length=VALUES_MAX)]] = Field(
        default=None, description="Its environment: values, or `{secretRef: NAME}`."
    )
    url: Given[Url] = Field(default=None, description="The address; for http, and only there.")
    headers: Given[Annotated[dict[HeaderName, HeaderValue], Field(max_length=VALUES_MAX)]] = Field(
        default=None, description="Headers of every request: values, or `{secretRef: NAME}`."
    )
    connect_timeout: Duration = Field(
        default="10s", alias="connectTimeout", description="How long connecting or starting may take."
    )
    call_timeout: Duration = Field(default="60s", alias="callTimeout", description="How long one call may take.")
    tools: Given[ToolFilter] = Field(default=None, description="Which of its tools there are.")


class BindingAuth(Part):
    """How the bound agents are known to the server."""

    kind: Literal["none", "bearer", "header"] = Field(description="Not at all, `Authorization: Bearer VALUE`, or a header.")
    secret_ref: Given[Name] = Field(
        default=None, alias="secretRef", description="The Secret with the value; for bearer and header."
    )
    header: Given[HeaderName] = Field(default=None, description="The header's name; for kind header.")


class McpBindingSpec(Part):
    """Which agents may use which tools of an MCP server, and as whom."""

    server: Name = Field(description="The McpServer, of the namespace or of the nearest one that it lies in.")
    agents: Given[Annotated[list[Name], Field(min_length=1, max_length=LIST_MAX)]] = Field(
        default=None, description="These agents of the namespace; absent: all of them."
    )
    allowed_tools: Given[Words] = Field(default=None, alias="allowedTools", description="These tools; absent: all of the server's.")
    auth: Given[BindingAuth] = Field(default=None, description="As whom; absent: as nobody.")


class SecretSpec(Part):
    """A value that others refer to by name. It goes in and never comes out again."""

    description: str = Field(default="", max_length=TEXT_MAX, description="What it is for. Not secret.")
    value: Given[Annotated[str, Field(min_length=1)]] = Field(
        default=None,
        repr=False,
        description="The value, at most 64 KiB; never shown again. Absent: the stored one stays.",
        json_schema_extra={"writeOnly": True},
    )


def wrong_knowledge(spec: KnowledgeSpec) -> list[Complaint]:
    """Contradictions in a Knowledge. Paths are those of `spec`."""
    found: list[Complaint] = []
    for at, one in enumerate(spec.documents):
        if one.content is None and one.url is None:
            found.append((("documents", at), "has no text: write a content or a url", None))
        elif one.content is not None and one.url is not None:
            found.append((("documents", at, "url"), "a document has a content or a url; keep one of them", one.url))
    return found


def wrong_server(spec: McpServerSpec) -> list[Complaint]:
    """Contradictions in an McpServer. Paths are those of `spec`."""
    found: list[Complaint] = []
    fields = {"stdio": ("command", "args", "env"), "http": ("url", "headers")}
    needed = fields[spec.transport][0]
    if getattr(spec, needed) is None:
        found.append(((needed,), f"is missing: transport {spec.transport} needs it", None))
    other = "http" if spec.transport == "stdio" else "stdio"
    misplaced = [field for field in fields[other] if getattr(spec, field) is not None]
    found += [((field,), f"is for transport {other}, and this is {spec.transport}; leave it out", None) for field in misplaced]
    names = [name.lower() for name in spec.headers or ()]
    found += [
        (("headers", name), "is there already: case means nothing in a header's name", None)
        for at, name in enumerate(spec.headers or ())
        if name.lower() in names[:at]
    ]
    return found


def wrong_binding(spec: McpBindingSpec) -> list[Complaint]:
    """Contradictions in an McpBinding. Paths are those of `spec`."""
    auth = spec.auth
    if auth is None:
        return []
    found: list[Complaint] = []
    if auth.kind != "none" and auth.secret_ref is None:
        found.append((("auth", "secretRef"), f"is missing: auth of kind {auth.kind} takes its value from a Secret", None))
    if auth.kind == "none" and auth.secret_ref is not None:
        found.append((("auth", "secretRef"), "is for kind bearer or header, and this is none; leave it out", None))
    if auth.kind == "header" and auth.header is None:
        found.append((("auth", "header"), "is missing: name the header that carries the value", None))
    if auth.kind != "header" and auth.header is not None:
        found.append((("auth", "header"), f"is for kind header, and this is {auth.kind}; leave it out", None))
    return found


def wrong_secret(value: str) -> str:
    """Why `value` is too long for a Secret, or nothing; it is never shown."""
    size = len(value.encode("utf-8", "surrogatepass"))
    return f"takes {size} bytes; at most {SECRET_MAX_BYTES}" if size > SECRET_MAX_BYTES else ""
