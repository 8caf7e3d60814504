"""Writes docs/reference and the table in docs/errors/README.md from the program itself: `make docs`, or `python docs/generate.py`.

Nothing in these pages is written by hand, so that none of it can be untrue; a test makes them again and compares.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol, cast, get_args, get_origin

import click
import msgspec

# Not as `proto.describe`: a library of Google's is called `proto` too.
sys.path.append(str(Path(__file__).resolve().parent.parent / "proto"))
from describe import Contract, grpc_status

from talon.cli import leaves, load, sources
from talon.cli.main import app
from talon.cli.runtime import open_gateway, open_runtime
from talon.domain import content, entries, errors, ids
from talon.gateway.http.docs import STATUS
from talon.gateway.http.pages import LIMIT_MAX
from talon.manifest import parse
from talon.manifest.document import DEPTH_MAX
from talon.manifest.explain import type_of
from talon.manifest.kinds import DOCS as DOCS_OF
from talon.manifest.kinds import KINDS
from talon.manifest.schemas import ANY, schema
from talon.providers import kinds as provider_kinds
from talon.store import paging
from talon.tools import check
from talon.tools.builtin.http_request import HttpRequestSettings
from talon.tools.protocol import ToolSpec
from talon.turn.machine.failover import MODEL_ROUNDS_MAX

MANIFESTS = """\
`talon explain KIND.field` says the same; `talon schema KIND` and `GET /v1/schemas/KIND` give it as JSON Schema, for editors.
An unknown field is refused, and so is a field that is written without a value.

- **Names** have at most 63 of `a-z`, `0-9` and `-`, with a letter or digit at both ends; a namespace is such names joined by
  `:`.
- **Durations** are whole numbers with `d`, `h`, `m`, `s` or `ms`, largest first: `90s`, `5m`, `1h30m`, `2d`; at most `366d`.
- **Times** are RFC 3339 (`2026-12-24T18:00:00Z`). Without an offset they are of the schedule's `timezone`: of two, where the
  clock is put back, the first; a time that the clock skips is refused.
- **Cron expressions** have five fields: minute, hour, day of month, month, day of week (0 and 7 are Sunday), with names
  (`MON`, `JAN`), `L` (the month's last day; `5L` its last Friday) and `#` (`1#2`: its second Monday); or one of `@hourly`,
  `@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly`, `@annually`. Where both days are given, either fires. What never
  fires is refused.
- **Label selectors** are `app=x`, `app!=x`, `app in (x,y)`, `app notin (x,y)`, `app` and `!app`, joined by commas; all must
  hold. `!=` and `notin` also hold where the label is absent.
- **References** name a resource of the same namespace; templates, knowledge and MCP servers are also found in the namespaces
  that it lies in, the nearest first.
- **YAML** is read without surprises: numbers as in JSON; `yes`, `no`, `on` and `off` must be quoted; every other plain word
  is text as it is written (`0123`, `12:30`, `2020-01-01`). Tags, merge keys and doubled fields are refused."""

DOCS = Path(__file__).resolve().parent
MADE = "<!-- Made by docs/generate.py. Do not edit: change the program, then run `make docs`. -->"
#: Entry types for what a later version does; a test looks for who writes them.
NOT_WRITTEN = (
    "step.finished",
    "tool.output",
    "plan.pending",
    "plan.resolved",
    "subagent.started",
    "subagent.finished",
    "memory.compressed",
)
#: Codes that no single route answers with: of any path, of any request, of no request but the start of a process.
OTHER_STATUS = {"stream_too_slow": "connection cut", "route_not_found": "404", "defect": "500", "database_newer": "at start"}
METHODS = ("get", "post", "put", "patch", "delete")
Json = dict[str, Any]


def page(title: str, *parts: str) -> str:
    """A whole page."""
    return "\n\n".join([MADE, f"# {title}", *(part.strip("\n") for part in parts if part)]) + "\n"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; a `|` within a cell is escaped."""
    lines = [list(heads), ["---"] * len(heads), *([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def code(text: object) -> str:
    """Text in code style; nothing stays nothing."""
    return f"`{text}`" if str(text) else ""


# --- HTTP ---------------------------------------------------------------------------------------------------------------------


def openapi() -> Json:
    """`/openapi.json` of a gateway that is open on an empty database."""

    async def ask() -> Json:
        with tempfile.TemporaryDirectory() as directory:
            settings = load.load(environ={"TALON_DATA_DIR": directory}, cwd=Path(directory)).settings
            async with open_runtime("up", settings) as runtime:
                gateway, *_ = open_gateway(runtime, None)
                return await _get(gateway, "/openapi.json")

    return asyncio.run(ask())


async def _get(gateway: Any, path: str) -> Json:
    parts: list[bytes] = []

    async def receive() -> Json:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Json) -> None:
        parts.append(message.get("body", b""))

    headers = [(b"host", b"127.0.0.1")]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http", "path": path}
    await gateway({**scope, "raw_path": path.encode(), "query_string": b"", "headers": headers}, receive, send)
    return json.loads(b"".join(parts))


def http_page() -> str:
    """Every route with its parameters, body and answers; then every schema."""
    api = openapi()
    operations = [(path, method, ops[method]) for path, ops in api["paths"].items() for method in METHODS if method in ops]
    tags = list(dict.fromkeys(operation["tags"][0] for _, _, operation in operations))
    parts = [
        "The same as JSON: `GET /openapi.json` of a running gateway. How streams, cursors and errors work is told in "
        "[concepts](../concepts.md); each error code has [its page](../errors/README.md).",
        api["info"]["description"],
        "Any route may also answer with the problems of its status: `400 malformed`, `403 forbidden_host`, `422 invalid`, "
        "`500 internal`, `503 database_unavailable`. They are not repeated below.",
        table(
            ("route", "what it does"),
            [
                (f"[`{method.upper()} {path}`](#{operation['operationId'].lower()})", operation["summary"])
                for path, method, operation in operations
            ],
        ),
    ]
    for tag in tags:
        parts.append(f"## {tag.capitalize()}")
        parts += [_operation(path, method, one) for path, method, one in operations if one["tags"][0] == tag]
    parts.append("## Schemas")
    parts += [_schema(name, schema) for name, schema in api["components"]["schemas"].items()]
    return page("HTTP reference", *parts)


def _operation(path: str, method: str, one: Json) -> str:
    parts = [f"### {one['operationId']}", f"`{method.upper()} {path}`", one["summary"] + "."]
    given = [p for p in one.get("parameters", []) if p["in"] != "path"]
    if given:
        rows = [(code(p["name"]), p["in"], _type(p["schema"]), p.get("description", "")) for p in given]
        parts.append(table(("parameter", "in", "type", "meaning"), rows))
    if "requestBody" in one:
        kinds = [f"`{media}`: {_type(content['schema'])}" for media, content in one["requestBody"]["content"].items()]
        parts.append(f"Body{'' if one['requestBody'].get('required') else ' (may be left out)'}: " + "; ".join(kinds))
    parts.append(table(("status", "answer"), [row for row in (_answer(*item) for item in one["responses"].items()) if row]))
    return "\n\n".join(parts)


#: What any route may answer with; said once on the page.
_COMMON = frozenset({"malformed", "forbidden_host", "invalid", "internal", "database_unavailable"})


def _answer(status: str, answer: Json) -> tuple[str, str] | None:
    content = answer.get("content", {})
    if "application/problem+json" in content:
        codes = [one.strip(" `") for one in answer["description"].removeprefix("Problem: ").split(",")]
        own = [f"[`{one}`](../errors/{one}.md)" for one in codes if one not in _COMMON]
        return (status, ", ".join(own)) if own else None
    kinds = [
        f"`{media}`" if media == "text/event-stream" else _type(kind.get("schema", {}))
        for media, kind in content.items()
        if kind.get("schema")
    ]
    return status, ": ".join(part for part in (answer["description"], ", ".join(kinds)) if part)


def _type(schema: Json) -> str:
    """A schema in a few words, with links to the named ones."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for word in ("anyOf", "oneOf"):
        if word in schema:
            kinds = [_type(one) for one in schema[word]]
            single = " or ".join(kinds[:-1])
            return f"{single}, or a list of them" if kinds[-1] == f"list of {single}" else " or ".join(dict.fromkeys(kinds))
    if "const" in schema:
        return code(schema["const"])
    if "enum" in schema:
        return " or ".join(code(value) if value else "empty" for value in schema["enum"])
    kind = schema.get("type", "any JSON")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and "items" in schema.get("properties", {}):
        return f"`{{items, next_cursor}}`, {_type(schema['properties']['items'])}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"map of {_type(schema['additionalProperties'])}"
    return str(kind) if isinstance(kind, str) else " or ".join(kind)


def _schema(name: str, schema: Json) -> str:
    required = set(schema.get("required", []))
    rows = [
        (code(field), _type(kind), "yes" if field in required else "", kind.get("description", ""))
        for field, kind in schema.get("properties", {}).items()
    ]
    heads = ("field", "type", "required", "meaning")
    described = " ".join(schema.get("description", "").split())
    return "\n\n".join(part for part in (f"### {name}", described, table(heads, rows) if rows else "") if part)


# --- command line -------------------------------------------------------------------------------------------------------------


def cli_page() -> str:
    """Every command with its arguments and options, as `--help` shows them."""
    commands = list(_commands(app, ("talon",)))
    parts = [
        "`--help` of each command says the same. Data goes to standard output, everything else to standard error.",
        table(
            ("exit code", "meaning"),
            [
                ("0", "done"),
                ("1", "failed, or no server answered; of `talon session send --wait`: the turn did not complete"),
                ("2", "wrong use: a command, an option, a file or a setting"),
                ("3", "refused by the server"),
                ("130", "interrupted"),
            ],
        ),
        "`talon up`, `talon gateway`, `talon worker` and `talon db` also take a flag for [every setting](settings.md) that "
        "concerns them; those are not repeated here.",
    ]
    for names, command in commands:
        parts.append(_command(names, command))
    return page("Command line reference", *parts)


def _commands(command: click.Command, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from _commands(found, (*names, name))
    else:
        yield names, command


def _command(names: tuple[str, ...], command: click.Command) -> str:
    context = click.Context(command, info_name=" ".join(names))
    usage = " ".join([*names, *command.collect_usage_pieces(context)])
    parts = [f"## {' '.join(names)}", f"```text\n{usage}\n```", *_prose(command.help or "")]
    rows = [
        (code(record[0]), record[1])
        for param in command.get_params(context)
        if isinstance(param, click.Option) and not (param.name or "").startswith("setting__") and "--help" not in param.opts
        if (record := param.get_help_record(context)) is not None
    ]
    if rows:
        parts.append(table(("option", "meaning"), rows))
    return "\n\n".join(parts)


def _prose(text: str) -> Iterator[str]:
    """click's help text: paragraphs are wrapped, those after `\\b` stand as they are, examples become code."""
    for block in inspect.cleandoc(text).split("\n\n"):
        if not block.startswith("\b"):
            yield " ".join(block.split())
            continue
        lines = block.removeprefix("\b").strip("\n").splitlines()
        example = lines[0].strip() in ("Example:", "Examples:")
        yield f"```{'sh' if example else 'text'}\n" + inspect.cleandoc("\n".join(lines[example:])) + "\n```"


# --- settings -----------------------------------------------------------------------------------------------------------------


def settings_page() -> str:
    """Every setting in its three spellings."""
    parts = [
        "A setting has one name. It is written in `talon.yaml` (groups as indentation), as an environment variable, or as a flag "
        "of `talon up`, `talon gateway`, `talon worker`. The environment wins over the file, a flag wins over both; any of them "
        "can be given as `--set NAME=VALUE` too. Lists are separated by commas outside of the file. An unknown name is a mistake "
        "in the file and on the command line, and a warning in the environment.",
        "Beside them: `TALON_CONFIG` names the settings file; `TALON_SERVER` and `TALON_NAMESPACE` say where client commands work; "
        "`TALON_DEBUG=1` shows tracebacks. The vendors' own variables make a provider of that name exist: "
        + ", ".join(f"`{variable}` (`{path}`)" for variable, path in sources.VENDOR_ENV.items())
        + ". "
        + ", ".join(f"`{variable}`" for kind in provider_kinds.KINDS.values() for variable in kind.region_env)
        + " are the region of those that exist and have none.",
    ]
    groups: dict[str, list[leaves.Leaf]] = {}
    for leaf in leaves.leaves().values():
        groups.setdefault(leaves.group_of(leaf.path), []).append(leaf)
    for group, members in groups.items():
        parts.append(f"## {group or 'general'}")
        parts.append(leaves.group_title(group).removeprefix(f"{group}: ") + "." if group else "")
        parts.append(table(("setting", "variable and flag", "value", "meaning"), [_setting(leaf) for leaf in members]))
    parts += ["## Fixed limits", "These are not settings.", table(("limit", "value"), fixed_limits())]
    return page("Settings", *parts)


def fixed_limits() -> list[tuple[str, str]]:
    """Bounds that stand in the code, by the code's own numbers."""
    http = HttpRequestSettings()
    return [
        ("characters of a name; of a namespace with all its parts", f"{ids.NAME_MAX}; 255"),
        (
            "manifests in one apply: bytes; documents; values, aliases replaced; levels",
            f"{parse.BYTES_MAX:,}; {parse.DOCUMENTS_MAX:,}; {parse.VALUES_MAX:,}; {DEPTH_MAX}",
        ),
        ("items of one page of a list", f"{LIMIT_MAX:,}"),
        ("characters of an `Idempotency-Key`", "255"),
        ("days that an `Idempotency-Key` is remembered, at least", f"{paging.KEY_KEEP_MS // 86_400_000}"),
        ("characters of a tool call's arguments", f"{check.ARGUMENTS_MAX:,}"),
        ("failures of one call with the same arguments, after which it is not made again", f"{check.REPEATS_MAX}"),
        ("characters of a tool's result, unless `output_max` says otherwise", f"{ToolSpec('', '', {}).output_max:,}"),
        ("bytes of an answer that `http_request` reads; redirects", f"{http.response_max:,}; {http.redirects_max}"),
        ("rounds over all model profiles, before a turn fails", f"{MODEL_ROUNDS_MAX}"),
    ]


def _setting(leaf: leaves.Leaf) -> tuple[str, str, str, str]:
    variables = [leaf.env, *([leaves.COMMON_ENV[leaf.path]] if leaf.path in leaves.COMMON_ENV else [])]
    flags = [leaves.SHORT_FLAGS[leaf.path]] if leaf.path in leaves.SHORT_FLAGS else []
    flags += [leaf.flag] if leaf.flag and leaf.flag not in flags else []
    spelt = " ".join(code(one) for one in (*variables, *(flags or [f"--set {leaf.path.replace('*', 'NAME')}=…"])))
    default = f"; default {code(leaf.default())}" if leaf.default() else ""
    later = ""
    if leaf.extra.get("inactive"):
        later = ". Not active in this version: accepted with a warning"
    elif leaf.extra.get("inactive_values"):
        later = f". Accepted with a warning, not active in this version: {', '.join(map(code, leaf.extra['inactive_values']))}"
    return code(leaf.path.replace("*", "NAME")), spelt, leaf.expected() + default, f"{leaf.info.description}{later}"


# --- journal entries ----------------------------------------------------------------------------------------------------------


def entries_page() -> str:
    """Every entry type with its payload."""
    parts = [
        "What stands in a session's journal and comes over its stream. On the wire an entry is "
        "`{seq, turn_id, type, at, payload}`. Fields of a payload that have their default are left out. A later version may add "
        "types and fields: skip what you do not know.",
        "On the stream there are also `text.delta` and `reasoning.delta`, pieces of an answer that is being written. Their payload "
        "is `{offset, text}`, offsets in code points. They are no entries: the finished text stands in `message.completed`, or, if "
        "the answer also asks for tools, in `model.finished`.",
        f"Types that this version reads and never writes: {', '.join(map(code, NOT_WRITTEN))}.",
    ]
    for name, payload in entries.PAYLOADS.items():
        parts += [f"## {name}", _doc(payload), _fields(payload), _reasons(name)]
    for part in (entries.Usage, entries.Money, entries.Opaque, entries.Behind, content.TextPart, content.ImagePart):
        parts += [f"## {part.__name__}", _doc(part), _fields(part)]
    return page("Journal entries", *parts)


def _doc(kind: type) -> str:
    return " ".join(inspect.getdoc(kind).split()) if kind.__doc__ else ""  # type: ignore[union-attr]


def _fields(kind: type[msgspec.Struct]) -> str:
    rows = [
        (
            code(field.encode_name),
            _annotation(field.type),
            "required" if field.required else code(json.dumps(_default(field))),
        )
        for field in msgspec.structs.fields(kind)
    ]
    return table(("field", "type", "default"), rows)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    made = field.default if field.default is not msgspec.NODEFAULT else cast(Callable[[], Any], field.default_factory)()
    return msgspec.to_builtins(made)


def _annotation(kind: Any) -> str:
    names: dict[Any, str] = {
        str: "text",
        int: "integer",
        float: "number",
        bool: "true or false",
        Decimal: "decimal text",
        type(None): "null",
    }
    if kind in names:
        return names[kind]
    if get_origin(kind) is tuple:
        return f"list of {_annotation(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return "object"
    if get_args(kind):
        return " or ".join(_annotation(one) for one in get_args(kind))
    return f"[{kind.__name__}](#{kind.__name__.lower()})"


def _reasons(name: str) -> str:
    reasons = entries.END_REASONS.get(name)
    return "Reasons: " + ", ".join(f"[`{one}`](../errors/{one}.md)" for one in reasons) + "." if reasons else ""


# --- manifests ----------------------------------------------------------------------------------------------------------------


def manifests_page() -> str:
    """How values are written, then every kind and every part of one with its fields."""
    models: Json = (schema(ANY) or {})["$defs"]
    kinds = [DOCS_OF[kind].__name__ for kind in KINDS]
    parts = [name for name in models if name not in kinds and not name.startswith("Bare")]
    bare = [name for name in models if name.startswith("Bare")]
    heads = dict(zip(kinds, KINDS, strict=True)) | {name: name for name in (*bare, *parts)}
    sections = [f"## {heads[name]}\n\n{models[name]['description']}\n\n{_manifest_fields(models[name])}" for name in heads]
    return page("Manifests", MANIFESTS, *sections)


def _manifest_fields(model: Json) -> str:
    rows: list[tuple[str, str, str, str]] = []
    for name, field in model["properties"].items():
        kind = type_of(model, field)
        if "const" not in field:
            kind = re.sub(r"\b[A-Z][A-Za-z]+\b", lambda part: f"[{part[0]}](#{part[0].lower()})", kind)
        value = (
            "required" if name in model.get("required", ()) else code(json.dumps(field["default"])) if "default" in field else ""
        )
        rows.append((code(name), kind, value, field.get("description", "")))
    return table(("field", "type", "default", "meaning"), rows) if rows else "It has no fields."


# --- error codes --------------------------------------------------------------------------------------------------------------


class Writer(Protocol):
    """Makes one page."""

    def __call__(self) -> str: ...


def status_of(name: str) -> str:
    """The HTTP status of a code, in words where it has none."""
    return str(STATUS.get(name) or OTHER_STATUS[name])


def grpc_page() -> str:
    """Services and messages, from the proto."""
    contract = Contract()
    return page(
        "gRPC reference",
        "`proto/talon/v1/talon.proto`, served on `gateway.grpc_port`; `talon.v1` in Python has its messages and stubs. "
        "How to use it: [the guide](../guides/grpc.md). Each code with its status: [errors](../errors/README.md).",
        contract.intro,
        *contract.services(table),
        "## Messages",
        *contract.messages(table),
    )


def errors_page() -> str:
    """The codes and reasons, each with a link to its page."""
    rows = [
        (f"[`{name}`]({name}.md)", status_of(name), grpc_status(name, status_of(name)), title)
        for name, title in errors.CODES.items()
    ]
    ends = [
        (f"[`{reason}`]({reason}.md)", code(end), title)
        for end, reasons in entries.END_REASONS.items()
        for reason, title in reasons.items()
    ]
    return page(
        "Errors",
        "A refused request is answered with `application/problem+json` (RFC 9457): "
        "`{type, title, status, detail, code, errors, request_id}`. `code` is stable; programs compare it. `type` is the "
        "code as an identifier; its last part is the name of a page here. "
        "`detail` names the offending value and says what to do, `errors` lists every wrong field. `request_id` is also in the "
        "server's log, where the server made a mistake; it is your own `X-Request-Id` if you sent one. "
        "Answers with status 429 and 503 carry `Retry-After`. The command line prints `error: DETAIL [CODE]`.",
        "## Codes of requests",
        table(("code", "HTTP", "gRPC", "title"), rows),
        "## Reasons of a turn's end",
        "Every turn ends with exactly one entry; its `reason` is one of these. `talon get turns AGENT/SESSION` shows it.",
        table(("reason", "entry", "title"), ends),
    )


PAGES: dict[str, Writer] = {
    "reference/http.md": http_page,
    "reference/grpc.md": grpc_page,
    "reference/cli.md": cli_page,
    "reference/settings.md": settings_page,
    "reference/entries.md": entries_page,
    "reference/manifests.md": manifests_page,
    "errors/README.md": errors_page,
}


def main() -> int:
    """Write what changed; -> 0."""
    for name, write in PAGES.items():
        path, text = DOCS / name, write()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"wrote docs/{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
