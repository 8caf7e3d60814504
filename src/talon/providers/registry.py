"""The configured providers: plain values in, `Provider`s by name out. Nothing of the environment is read here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import msgspec

from talon.domain.errors import FieldError, Invalid
from talon.domain.ids import is_name
from talon.providers.dialect import Dialect
from talon.providers.kinds import KINDS
from talon.providers.limits import CallLimits
from talon.providers.protocol import Key, Provider, ProviderError


@dataclass(frozen=True)
class ProviderConfig:
    """`providers.NAME` of the configuration.

    `kind`: scripted, or one of `kinds.KINDS`. Those: `base_url` (empty: the vendor's own), `api_key` (empty: none is sent, or the
    one that the kind finds; never in `repr`); chat completions: `max_tokens_field` (empty: chosen by the host); bedrock: `region`
    (empty: of its `base_url`). scripted: `script`, a path. `limits` for all.
    """

    kind: str
    base_url: str = ""
    api_key: Key = field(default="", repr=False)
    script: str = ""
    max_tokens_field: str = ""
    region: str = ""
    limits: CallLimits = field(default_factory=CallLimits)


#: The settings that only some kinds read.
_OPTIONS: frozenset[str] = frozenset[str]().union(*(kind.options for kind in KINDS.values()))


class ProviderInfo(msgspec.Struct, frozen=True):
    """One line of the catalogue that a worker publishes: nothing secret."""

    name: str
    kind: str
    base_url: str = ""


class Providers:
    """The providers of one process; made by `build_providers`. Each is created at its first `get`."""

    def __init__(self, configs: Mapping[str, ProviderConfig], made: Mapping[str, Provider]) -> None:
        self._configs = dict(configs)
        self._made = dict(made)

    def get(self, name: str) -> Provider:
        """The provider `name`. Raises `ProviderError("unresolved")` naming those that are configured."""
        provider = self._made.get(name)
        if provider is None:
            config = self._configs.get(name)
            if config is None:
                known = ", ".join(sorted(self._configs)) or "none"
                raise ProviderError("unresolved", f"no provider is named {name!r}; configured are: {known}"[:500])
            provider = self._made[name] = _http(name, config)
        return provider

    def catalogue(self) -> list[ProviderInfo]:
        """What is configured, by name."""
        return [ProviderInfo(name, config.kind, _base_url(config)) for name, config in sorted(self._configs.items())]

    async def close(self) -> None:
        """Close what was created; calls after it fail as `connection`. Closing twice does nothing."""
        for provider in self._made.values():
            await provider.close()


def build_providers(configs: Mapping[str, ProviderConfig]) -> Providers:
    """Check every configuration and read every script. Raises `Invalid` with one `FieldError` for each wrong field."""
    errors: list[FieldError] = []
    made: dict[str, Provider] = {}
    for name, config in configs.items():
        _check(name, config, errors)
        if config.kind == "scripted" and config.script:
            try:
                made[name] = _scripted(name, config)
            except Invalid as error:
                errors.append(FieldError(f"providers.{name}.script", error.detail, config.script))
    if errors:
        words = "; ".join(f"{error.field}: {error.message}" for error in errors)
        raise Invalid("invalid", f"the providers are not configured well: {words}", tuple(errors))
    return Providers(configs, made)


def dialect_of(config: ProviderConfig) -> Dialect:
    """The dialect that a checked configuration of one of `KINDS` asks for."""
    kind = KINDS[config.kind]
    options = {name: getattr(config, name) for name in kind.options}
    return _named(kind.dialect)(_base_url(config), **options)


def _http(name: str, config: ProviderConfig) -> Provider:
    from talon.providers.http import HttpProvider  # aiohttp takes 0.3 s to import: only who calls a model pays it

    finds = KINDS[config.kind].finds_key
    key = config.api_key or (_named(finds)() if finds else "")
    return HttpProvider(name, dialect_of(config), key, limits=config.limits)


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _scripted(name: str, config: ProviderConfig) -> Provider:
    from talon.providers.scripted.provider import ScriptedProvider
    from talon.providers.scripted.script import Script

    return ScriptedProvider(name, Script.load(config.script), limits=config.limits)


def _base_url(config: ProviderConfig) -> str:
    return config.base_url or (KINDS[config.kind].base_url.replace("{region}", config.region) if config.kind in KINDS else "")


def _check(name: str, config: ProviderConfig, errors: list[FieldError]) -> None:
    at = f"providers.{name}"
    if not is_name(name):
        errors.append(FieldError(at, "a provider's name is lower-case letters, digits and '-', at most 63", name))
    if config.kind not in (*KINDS, "scripted"):
        errors.append(FieldError(f"{at}.kind", f"unknown kind; there are {', '.join((*KINDS, 'scripted'))}", config.kind))
    options = KINDS[config.kind].options if config.kind in KINDS else frozenset[str]()
    unread: dict[str, Any] = {option: getattr(config, option) for option in _OPTIONS - options}
    if config.kind == "scripted":
        if not config.script:
            errors.append(FieldError(f"{at}.script", "the path of a script is needed"))
        unread |= {"base_url": config.base_url, "api_key": config.api_key}
    else:
        unread |= {"script": config.script}
    errors += [FieldError(f"{at}.{key}", f"has no meaning for kind {config.kind}") for key, value in unread.items() if value]
    if config.kind == "bedrock":
        errors += _bedrock(at, config)
    if config.base_url:
        problem = _url_problem(config.base_url)
        if problem:  # without the value: a URL may carry a password
            errors.append(FieldError(f"{at}.base_url", problem))
    if isinstance(config.api_key, str) and any(c.isspace() or not c.isprintable() for c in config.api_key):
        errors.append(FieldError(f"{at}.api_key", "contains a blank or a control character"))
    for key, value in msgspec.structs.asdict(config.limits).items():
        if not value > 0:
            errors.append(FieldError(f"{at}.{key}", "must be greater than 0", value))


def _bedrock(at: str, config: ProviderConfig) -> Iterator[FieldError]:
    if config.region and re.fullmatch("[a-z0-9-]+", config.region) is None:
        yield FieldError(f"{at}.region", "is no name of a region, as in eu-central-1", config.region)
    signs = not config.api_key or (isinstance(config.api_key, str) and ":" in config.api_key)
    if not config.region and not (config.base_url and (not signs or "bedrock-runtime" in config.base_url)):
        yield FieldError(f"{at}.region", "a region is needed, as in eu-central-1")
    if signs and find_spec("botocore") is None:
        yield FieldError(f"{at}.api_key", "calls with AWS credentials are signed by botocore: install talon-runtime[bedrock]")


def _url_problem(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "must be an http:// or https:// URL, for example http://127.0.0.1:11434/v1"
    if parts.username or parts.password or parts.query or parts.fragment:
        return "must have no user, password, query or fragment; the key belongs into api_key"
    return ""
