"""Providers from the settings: what each is told, with its key or with what reads it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from talon.cli.settings import Provider, Settings
from talon.providers.limits import CallLimits
from talon.providers.protocol import Key
from talon.providers.registry import ProviderConfig

#: (provider, what stands in its setting `api_key`) -> its key.
KeyOf = Callable[[str, str], Awaitable[Key]]


async def provider_configs(settings: Settings, key_of: KeyOf) -> dict[str, ProviderConfig]:
    """`providers` of the settings."""
    return {name: await _config(name, one, key_of) for name, one in settings.providers.items()}


async def _config(name: str, one: Provider, key_of: KeyOf) -> ProviderConfig:
    return ProviderConfig(
        kind=one.kind or "",
        base_url=one.base_url or "",
        api_key=await key_of(name, one.api_key.get_secret_value() if one.api_key else ""),
        script=str(one.script or ""),
        max_tokens_field=one.max_tokens_field or "",
        region=one.region or "",
        limits=CallLimits(
            connect_s=one.connect_timeout_s,
            first_token_s=one.first_token_timeout_s,
            idle_s=one.idle_timeout_s,
            total_s=one.total_timeout_s,
            answer_max=one.answer_max,
            tool_calls_max=one.tool_calls_max,
            line_max=one.line_max,
        ),
    )
