"""Where settings come from: each source as a list of (path, value, where it was said). No meaning, no merging here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from talon.cli import leaves
from talon.cli.text import nearest
from talon.domain.errors import TalonError
from talon.domain.ids import is_name
from talon.manifest.document import Document
from talon.manifest.parse import parse
from talon.providers.kinds import KINDS, kind_of

#: Variables of the program that are no settings.
OTHER_ENV = frozenset(
    {
        "TALON_SERVER",
        "TALON_NAMESPACE",
        "TALON_DEBUG",
        "TALON_CONFIG",
        "TALON_API_KEY",
        "TALON_CA_FILE",
        "TALON_CERT_FILE",
        "TALON_KEY_FILE",
    }
)
#: The vendors' own variables; they make a provider of that name exist. Explicit configuration wins, field by field.
VENDOR_ENV = {
    variable: f"providers.{name.replace('_', '-')}.{field}"
    for name, kind in KINDS.items()
    for variable, field in ((kind.key_env, "api_key"), (kind.url_env, "base_url"))
    if variable
}


@dataclass(frozen=True, slots=True)
class Given:
    """A value that somebody gave for a setting. `where`: `talon.yaml line 7`, `environment variable X`, `flag --x`.

    `base` is the directory that a relative path is meant from.
    """

    path: str
    value: Any
    where: str
    base: Path


@dataclass(slots=True)
class Found:
    """What a source had: values, mistakes (the program does not start) and warnings."""

    given: list[Given] = field(default_factory=list[Given])
    mistakes: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def _children(prefix: tuple[str, ...]) -> list[str]:
    """The keys that may stand below `prefix`; `*` where any name may."""
    found: dict[str, None] = {}
    for path in leaves.leaves():
        parts = path.split(".")
        if len(parts) > len(prefix) and all(a in (b, "*") for a, b in zip(parts, prefix, strict=False)):
            found[parts[len(prefix)]] = None
    return list(found)


def read_file(path: Path) -> Found:
    """`talon.yaml`. Keys may be written in camelCase; `gateway.grpcAddr` is `HOST:PORT` as in the first documents."""
    found = Found()
    try:
        data = path.read_bytes()
        documents = [] if _says_nothing(data) else parse(data)
    except OSError as error:
        found.mistakes.append(f"{path}: cannot be read: {error.strerror}")
        return found
    except TalonError as error:
        found.mistakes.append(f"{path}: {error.detail}")
        return found
    found.mistakes += [f"{path}: {problem.field}: {problem.message}" for document in documents for problem in document.problems]
    if len(documents) > 1:
        found.mistakes.append(f"{path}: {len(documents)} documents; settings are one")
    if not documents:
        return found
    tree: Any = documents[0].data
    if isinstance(tree, dict) and not found.mistakes:
        _Walk(path, documents[0], found).mapping(cast(dict[str, Any], tree), (), ())
    elif not found.mistakes:
        found.mistakes.append(f"{path}: expected settings as `group:` and `  name: value` below it")
    return found


def _says_nothing(data: bytes) -> bool:
    """Only comments and empty lines: a file that somebody has not begun yet."""
    return all(not line.strip() or line.lstrip().startswith(b"#") for line in data.splitlines())


@dataclass(slots=True)
class _Walk:
    file: Path
    document: Document
    found: Found

    def where(self, written: tuple[str, ...]) -> str:
        return f"{self.file} line {self.document.lines[written]}" if written in self.document.lines else str(self.file)

    def mapping(self, tree: dict[str, Any], prefix: tuple[str, ...], written: tuple[str, ...]) -> None:
        known = _children(prefix)
        seen: dict[str, str] = {}
        for raw, value in tree.items():
            here = (*written, raw)
            key = raw if raw in known or "*" in known else _snake(raw)
            if (*prefix, key) == ("gateway", "grpc_addr"):
                self.grpc_addr(value, here)
            elif key in seen:
                self.found.mistakes.append(
                    f"{'.'.join((*prefix, key))}: given twice, as {seen[key]!r} and {raw!r} ({self.where(here)})"
                )
            elif "*" in known and not is_name(key):
                self.found.mistakes.append(f"{'.'.join(here)}: {raw!r} is no name: a-z, 0-9 and - ({self.where(here)})")
            elif key in known or "*" in known:
                self.entry((*prefix, key), value, here)
            else:
                hint = nearest(key, known)
                self.found.mistakes.append(f"{'.'.join(here)}: unknown key {raw!r} ({self.where(here)}){hint}")
            seen.setdefault(key, raw)

    def entry(self, path: tuple[str, ...], value: Any, written: tuple[str, ...]) -> None:
        dotted = ".".join(path)
        if leaves.find(dotted) is not None:
            if value is not None:
                self.found.given.append(Given(dotted, value, self.where(written), self.file.parent))
        elif isinstance(value, dict) and value:
            self.mapping(cast(dict[str, Any], value), path, written)
        elif value not in (None, {}):
            keys = ", ".join(k if k != "*" else "NAME" for k in _children(path))
            self.found.mistakes.append(f"{dotted}: expected keys below it ({keys}), got a single value ({self.where(written)})")
        elif len(path) == 2:  # `providers: {ollama: {}}`: an entry with nothing but its name
            self.found.given.append(Given(dotted, {}, self.where(written), self.file.parent))

    def grpc_addr(self, value: Any, written: tuple[str, ...]) -> None:
        host, colon, port = str(value).rpartition(":")
        if not colon or not port.isdigit():
            self.found.mistakes.append(f"gateway.grpcAddr: {value!r}: expected HOST:PORT ({self.where(written)})")
            return
        for path, part in (("gateway.grpc_host", host), ("gateway.grpc_port", int(port))):
            self.found.given.append(Given(path, part, self.where(written), self.file.parent))


def read_vendors(environ: Mapping[str, str], cwd: Path) -> Found:
    """`OPENAI_API_KEY`, `ANTHROPIC_BASE_URL` and their like."""
    named = {name: environ[name] for name in VENDOR_ENV if environ.get(name)}
    if "OLLAMA_HOST" in named:
        named["OLLAMA_HOST"] = _ollama_url(named["OLLAMA_HOST"])
    return Found([Given(VENDOR_ENV[name], value, f"environment variable {name}", cwd) for name, value in named.items()])


def read_regions(environ: Mapping[str, str], merged: Mapping[str, Given], cwd: Path) -> Iterator[Given]:
    """`AWS_REGION` and its like, which stand on many machines for other reasons: they make no provider exist, but hold for those
    that do."""
    for name in sorted({path.split(".")[1] for path in merged if path.startswith("providers.")}):
        kind = merged.get(f"providers.{name}.kind")
        variables = KINDS[found].region_env if (found := kind.value if kind else kind_of(name)) in KINDS else ()
        variable = next((variable for variable in variables if environ.get(variable)), "")
        if variable and f"providers.{name}.base_url" not in merged:
            yield Given(f"providers.{name}.region", environ[variable], f"environment variable {variable}", cwd)


def _ollama_url(host: str) -> str:
    """The variable is an address to listen on as well: a scheme, a port or a host may be missing."""
    if "://" in host:
        return host
    address, slash, path = host.partition("/")
    if address.startswith(":"):
        address = f"127.0.0.1{address}"
    if address.endswith("]") or ":" not in address:
        address += ":11434"
    return f"http://{address}{slash}{path}"


def read_environment(environ: Mapping[str, str], cwd: Path) -> Found:
    """`TALON_*` and `DATABASE_URL`. An empty variable counts as not set; an unknown `TALON_*` one is a warning."""
    found = Found()
    by_path: dict[str, Given] = {}
    for name in sorted(environ):
        if not environ[name] or name in OTHER_ENV:
            continue
        hit = leaves.from_env_name(name)
        if hit is not None:
            path, leaf = hit
            if path not in by_path or name == leaf.env:
                by_path[path] = Given(path, leaf.from_text(environ[name]), f"environment variable {name}", cwd)
        elif name.startswith("TALON_"):
            known = [leaf.env for leaf in leaves.leaves().values()] + sorted(OTHER_ENV)
            found.warnings.append(f"environment variable {name} is not known and was ignored{nearest(name, known)}")
    found.given.extend(by_path.values())
    return found


def read_flags(flags: Mapping[str, str], sets: tuple[str, ...], cwd: Path) -> Found:
    """Flags by path, and the texts of `--set path=value`."""
    found = Found()
    by_path: dict[str, Given] = {}
    for given in _sets(sets, found, cwd):
        if given.path in by_path:
            found.mistakes.append(f"{given.path}: given twice with --set")
        by_path[given.path] = given
    for path, text in flags.items():
        leaf = leaves.leaves()[path]
        if path in by_path:
            found.mistakes.append(f"{path}: given twice, by {leaf.flag} and by --set")
        by_path[path] = Given(path, leaf.from_text(text), f"flag {leaves.SHORT_FLAGS.get(path, leaf.flag)}", cwd)
    found.given.extend(by_path.values())
    return found


def _sets(sets: tuple[str, ...], found: Found, cwd: Path) -> Iterator[Given]:
    for text in sets:
        path, equals, value = text.partition("=")
        leaf = leaves.find(path.strip())
        if not equals:
            found.mistakes.append(f"--set {text}: expected PATH=VALUE, for example --set worker.concurrency=8")
        elif leaf is None:
            hint = nearest(path, [p.replace("*", "NAME") for p in leaves.leaves()])
            found.mistakes.append(f"--set {path}: no such setting{hint}")
        elif "*" in leaf.path and not is_name(path.split(".")[1]):
            found.mistakes.append(f"--set {path}: {path.split('.')[1]!r} is no name: a-z, 0-9 and -")
        else:
            yield Given(path.strip(), leaf.from_text(value), f"flag --set {path.strip()}", cwd)
