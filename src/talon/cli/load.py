"""From the sources to frozen settings: merge by rank, check, explain. Every mistake is found, not only the first."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import urlsplit

from pydantic import ValidationError

from talon.cli import access_settings, leaves, scheduler_settings, sources
from talon.cli.errors import WrongUse
from talon.cli.leaves import Leaf
from talon.cli.settings import Settings
from talon.cli.sources import Given
from talon.domain.ids import NAME_MAX, is_name, is_namespace
from talon.providers.kinds import KINDS, ProviderKind, kind_of

WORKER_PORT, SCHEDULER_PORT = 19790, 19791
#: In place of a key: the secret that has it.
SECRET_PREFIX = "secret:"
NOT_ACTIVE = "NotImplemented: not active in this version"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with what to tell the user on stderr. `where` names the source of every setting that was given."""

    settings: Settings
    warnings: tuple[str, ...]
    config_file: Path | None
    where: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SqliteAt:
    """The embedded database: one file, one process."""

    path: Path


@dataclass(frozen=True, slots=True)
class PostgresAt:
    """A PostgreSQL; `url` may hold a password: never print it."""

    url: str


def load(
    flags: Mapping[str, str] = {},
    sets: tuple[str, ...] = (),
    *,
    environ: Mapping[str, str],
    config: Path | None = None,
    cwd: Path | None = None,
) -> Loaded:
    """Read every source once. `config` None: `TALON_CONFIG`, else `talon.yaml` in `cwd` if it exists.

    Raises `WrongUse` with one line per mistake. Secrets are in no message.
    """
    cwd = cwd or Path.cwd()
    file = _config_file(config, environ, cwd)
    found = [sources.read_vendors(environ, cwd)]
    if file is not None:
        found.append(sources.read_file(file))
    found += [sources.read_environment(environ, cwd), sources.read_flags(flags, sets, cwd)]
    mistakes = [line for source in found for line in source.mistakes]
    merged: dict[str, Given] = {given.path: given for source in found for given in source.given}
    for given in sources.read_regions(environ, merged, cwd):
        merged.setdefault(given.path, given)
    merged.setdefault("tools.path", Given("tools.path", [str(file.parent if file else cwd)], "default", cwd))
    merged.setdefault("data_dir", Given("data_dir", "talon-data", "default", cwd))
    settings = _validate(merged, mistakes)
    if settings is not None:
        mistakes += _cross_checks(settings, merged)
    if mistakes or settings is None:
        raise WrongUse(*mistakes)
    warnings = [line for source in found for line in source.warnings]
    warnings += _inactive(merged)
    warnings += _keyless(settings)
    warnings += access_settings.warnings(settings.gateway)
    warnings += scheduler_settings.warnings(settings.control_plane.scheduler, merged)
    return Loaded(
        settings, tuple(warnings), file, {path: given.where for path, given in merged.items() if given.where != "default"}
    )


def _config_file(config: Path | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    named = config or (Path(environ["TALON_CONFIG"]) if environ.get("TALON_CONFIG") else None)
    if named is not None:
        return cwd / named
    default = cwd / "talon.yaml"
    return default if default.is_file() else None


def _validate(merged: Mapping[str, Given], mistakes: list[str]) -> Settings | None:
    tree: dict[str, Any] = {}
    for given in merged.values():
        leaf = leaves.find(given.path)
        if leaf is not None and leaf.is_number and isinstance(given.value, bool):
            mistakes.append(_mistake(given, leaf))  # pydantic would read `true` as 1
            continue
        node = tree
        *parents, last = given.path.split(".")
        for part in parents:
            node = node.setdefault(part, {})
        if leaf is None:
            node.setdefault(last, given.value)  # an entry of a map with nothing but its name
        else:
            node[last] = _absolute(given) if leaf.is_path else given.value
    for name, entry in tree.get("providers", {}).items():
        if kind := kind_of(name):
            entry.setdefault("kind", kind)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=False, include_input=False):
            mistakes += _explain(detail["loc"], merged)
        return None


def _absolute(given: Given) -> Any:
    """A relative path is meant from the directory of the file that names it, else from the working directory."""
    value: Any = given.value
    if isinstance(value, str):
        return given.base / Path(value).expanduser()
    if isinstance(value, list):
        return [given.base / Path(v).expanduser() if isinstance(v, str) else v for v in cast(list[Any], value)]
    return value


def _explain(loc: tuple[int | str, ...], merged: Mapping[str, Given]) -> Iterator[str]:
    for end in range(len(loc), 0, -1):
        given = merged.get(".".join(str(part) for part in loc[:end]))
        if given is not None and (leaf := leaves.find(given.path)) is not None:
            item = loc[end] if end < len(loc) else None
            values: Any = given.value
            if isinstance(item, int) and isinstance(values, list):
                given = Given(f"{given.path}[{item}]", cast(list[Any], values)[item], given.where, given.base)
            yield _mistake(given, leaf)
            return
    yield f"{'.'.join(map(str, loc))}: not valid"


def _shown(given: Given, leaf: Leaf) -> str:
    return "the value (hidden)" if leaf.is_secret else re.sub(r"//[^@/\s]*@", "//…@", repr(given.value))


def _mistake(given: Given, leaf: Leaf) -> str:
    return f"{given.path}: {_shown(given, leaf)} does not fit: expected {leaf.expected()} ({given.where})"


def database_of(settings: Settings) -> SqliteAt | PostgresAt:
    """Where the journal is. Raises `ValueError` with what to do when driver and URL contradict each other."""
    group = settings.control_plane.database
    url = group.url.get_secret_value() if group.url else ""
    kind = "postgres" if url.startswith(("postgresql://", "postgres://")) else "sqlite" if url.startswith("sqlite:///") else ""
    if url and not kind:
        raise ValueError("control_plane.database.url: expected postgresql://USER:PASSWORD@HOST/NAME or sqlite:///PATH")
    if group.driver == "postgres" and not url:
        raise ValueError(
            "control_plane.database.driver is postgres, but no URL says where: set DATABASE_URL=postgresql://USER:PASSWORD@HOST/NAME"
            " or control_plane.database.url"
        )
    if url and group.driver not in (None, kind):
        raise ValueError(f"control_plane.database.driver is {group.driver}, but the URL is one of {kind}: change one of them")
    if kind == "postgres":
        return PostgresAt(url)
    path = Path(url.removeprefix("sqlite:///")) if url else settings.data_dir / "talon.db"
    return SqliteAt(path)


def describe(database: SqliteAt | PostgresAt) -> str:
    """Where it is, in words: never with a password or the parameters of the URL."""
    if isinstance(database, SqliteAt):
        return f"sqlite {database.path}"
    parts = urlsplit(database.url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def port_of(settings: Settings, role: str) -> int:
    """The HTTP port: as given; by default a worker stands beside a gateway of the same host."""
    given = "port" in settings.gateway.model_fields_set
    return settings.gateway.port if given else {"worker": WORKER_PORT, "scheduler": SCHEDULER_PORT}.get(role, settings.gateway.port)


def grpc_port_of(settings: Settings) -> int:
    """The gRPC port: as given; a free one also where HTTP takes a free one."""
    gateway = settings.gateway
    return 0 if gateway.port == 0 and "grpc_port" not in gateway.model_fields_set else gateway.grpc_port


def worker_name_of(settings: Settings, role: str) -> str:
    """The worker's name: as given, else the host's with the port (with the process id if that is any free one).

    Names differ between the processes of a host and are the same when one of them starts again.
    """
    if settings.worker.name:
        return settings.worker.name
    port = port_of(settings, role)
    suffix = f"-{port or f'p{os.getpid()}'}"
    host = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower())[: NAME_MAX - len(suffix)].strip("-")
    return f"{host or 'worker'}{suffix}"


def broker_of(settings: Settings) -> str:
    """The broker that rings: `local` or `postgres`. What this version cannot do falls back to the database's own (warned)."""
    driver = settings.control_plane.message_broker.driver
    if driver in ("local", "postgres"):
        return driver
    return "postgres" if isinstance(database_of(settings), PostgresAt) else "local"


def secret_of(key: str) -> tuple[str, str] | None:
    """(namespace, name) of the secret that `providers.NAME.api_key` refers to; None for a key that stands there itself."""
    namespace, slash, name = key.removeprefix(SECRET_PREFIX).partition("/")
    found = key.startswith(SECRET_PREFIX) and slash and is_namespace(namespace) and is_name(name)
    return (namespace, name) if found else None


def _cross_checks(settings: Settings, merged: Mapping[str, Given]) -> Iterator[str]:
    def where(path: str) -> str:
        return f" ({merged[path].where})" if path in merged else ""

    try:
        database = database_of(settings)
    except ValueError as error:
        given = merged.get("control_plane.database.url") or merged.get("control_plane.database.driver")
        yield f"{error} ({given.where})" if given else str(error)
    else:
        if settings.control_plane.message_broker.driver == "postgres" and isinstance(database, SqliteAt):
            yield "control_plane.message_broker.driver: 'postgres' needs PostgreSQL as the database: set DATABASE_URL, or use local"
    yield from access_settings.mistakes(settings.gateway, where)
    yield from scheduler_settings.mistakes(settings.control_plane.scheduler, merged, where)
    if settings.worker.lease_ttl_s <= settings.worker.sweep_s:
        yield f"worker.sweep_s: {settings.worker.sweep_s:g} must be shorter than worker.lease_ttl_s"
    for name, provider in settings.providers.items():
        if provider.kind is None:
            yield f"providers.{name}.kind: not given, and {name!r} is no kind: set it to {' or '.join(get_args(ProviderKind))}"
        if provider.kind == "scripted" and provider.script is None:
            yield f"providers.{name}.script: a scripted provider needs a file with its answers"
        key = provider.api_key.get_secret_value() if provider.api_key else ""
        if key.startswith(SECRET_PREFIX) and secret_of(key) is None:
            yield f"providers.{name}.api_key: a reference to a secret is written secret:NAMESPACE/NAME, as in secret:default/openai"
    yield from _key_checks(settings, merged)


def _key_checks(settings: Settings, merged: Mapping[str, Given]) -> Iterator[str]:
    if settings.secrets.key is None:
        return
    given = merged["secrets.key"]
    if settings.secrets.key_file is not None:
        yield f"secrets.key ({given.where}) and secrets.key_file ({merged['secrets.key_file'].where}) are both given: choose one"
    from talon.vault.ring import parse_keys  # the cryptography comes with it

    try:
        parse_keys(settings.secrets.key.get_secret_value())
    except ValueError as error:
        yield f"secrets.key: the value (hidden) {error} ({given.where})"


def _keyless(settings: Settings) -> Iterator[str]:
    """Providers that ask a vendor at its own address, where nobody is answered without a key, and have none."""
    for name, one in settings.providers.items():
        kind = KINDS.get(one.kind or "")
        has_key = one.api_key is not None and one.api_key.get_secret_value()
        if kind is None or has_key or one.base_url or kind.finds_key or not kind.base_url.startswith("https://"):
            continue
        own = kind.key_env if kind_of(name) == one.kind else ""
        variable = own or f"TALON_PROVIDERS_{name.upper().replace('-', '_')}_API_KEY"
        yield f"providers.{name} has no api_key, and {urlsplit(kind.base_url).hostname} answers nobody without one: set {variable}"


def _inactive(merged: Mapping[str, Given]) -> Iterator[str]:
    for given in merged.values():
        leaf = leaves.find(given.path)
        if leaf is None:
            continue
        if leaf.extra.get("inactive") or given.value in leaf.extra.get("inactive_values", []):
            yield f"{given.path} = {given.value!r} ({given.where}): {NOT_ACTIVE}"
