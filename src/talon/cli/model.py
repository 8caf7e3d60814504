"""`talon model …`: which models there are, whether one answers, and which one a request gets, rule by rule."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from talon.cli.connection import At, connection_options, run, server_option
from talon.cli.errors import Failed, WrongUse, found_here
from talon.cli.load import Loaded, SqliteAt, database_of, describe, secret_of
from talon.cli.options import SettingsCommand, settings_options
from talon.cli.output import emit, output_option, table
from talon.cli.settings import Settings
from talon.domain.models import COMPLEXITIES, TASK_TYPES, TIERS, Models

MODELS = "/v1/models"
_QUESTION = "Answer with the one word: ready"


@click.group("model", context_settings={"max_content_width": 110})
def command() -> None:
    """Models: which there are, whether one answers, which one a turn gets and why.

    \b
    Examples:
      talon model list --tier cheap
      talon model test openai/gpt-4o-mini
      talon model explain customer-support --session renewals
      talon model explain --task reasoning --complexity high --input-tokens 20000
    """


@command.command("list")
@click.option("--tier", type=click.Choice(TIERS), help="those of this tier only")
@output_option
@server_option
def list_(at: At, tier: str | None, output: str) -> None:
    """List the models that live workers know of their providers. Prices are per million tokens.

    GOES ON: given the beginning of an answer that broke off, the model writes the rest. RESTS: it failed again and again, and is
    left alone so long.
    """

    async def work() -> list[dict[str, Any]]:
        async with at.client() as client:
            return await client.items(MODELS)

    emit([one for one in run(work()) if tier in (None, one["tier"])], output, _models)


def _models(models: list[dict[str, Any]]) -> str:
    heads = (
        "MODEL",
        "TIER",
        "WINDOW",
        "OUTPUT",
        "TOOLS",
        "VISION",
        "GOES ON",
        "INPUT",
        "CACHED",
        "WRITE",
        "ANSWER",
        "CURRENCY",
        "AS OF",
        "RESTS",
    )
    return table(heads, [_row(one) for one in models], empty="no worker knows a model")


def _row(model: dict[str, Any]) -> tuple[Any, ...]:
    prices: dict[str, Any] = model["prices"] or {}
    return (
        model["id"],
        model["tier"],
        model["contextWindow"] or "",
        model["outputMax"] or "",
        "yes" if model["supportsTools"] else "no",
        "yes" if model["supportsVision"] else "no",
        "yes" if model["prefill"] else "no",
        *(prices.get(name, "") for name in ("input", "cacheRead", "cacheWrite", "output", "currency", "date")),
        f"{model['restingMs'] / 1000:.0f} s" if model["restingMs"] else "",
    )


@command.command("explain", short_help="Say which models a turn would ask, and why.")
@click.argument("agent", required=False)
@click.option("--session", metavar="NAME", help="in this session of AGENT [a new one]")
@click.option("--data-tier", type=click.IntRange(0, 2), help="tier of the data: 0 public, 1 internal, 2 confidential [0]")
@click.option("--task", "task_type", type=click.Choice(TASK_TYPES), help="in place of AGENT: what a model is wanted for")
@click.option("--complexity", type=click.Choice(COMPLEXITIES), help="of the task [medium]")
@click.option("--input-tokens", type=click.IntRange(0), help="tokens that the task gives to the model [0]")
@click.option("--model", metavar="PROVIDER/NAME", help="what the task would cost with this one [the one that suits it]")
@output_option
@connection_options
def explain(
    at: At,
    agent: str | None,
    session: str | None,
    data_tier: int | None,
    task_type: str | None,
    complexity: str | None,
    input_tokens: int | None,
    model: str | None,
    output: str,
) -> None:
    """Say which models a turn of AGENT would ask, or which one suits a task and what it would cost; and why, rule by rule.

    \b
    Examples:
      talon model explain customer-support --session renewals
      talon model explain customer-support --data-tier 2
      talon model explain --task reasoning --complexity high --input-tokens 20000
      talon model explain --task chat --input-tokens 2000 --model openai/gpt-4o
    """
    if (agent is None) == (task_type is None):
        raise WrongUse("give either an AGENT or --task, as in `talon model explain --task chat`")
    if agent is None and (session or data_tier is not None):
        raise WrongUse("--session and --data-tier go with an AGENT")
    if agent is not None and (complexity or input_tokens is not None or model is not None):
        raise WrongUse("--complexity, --input-tokens and --model go with --task")
    if agent is not None:
        params = {"session": session or "", "data_tier": str(data_tier or 0)}
        emit(run(_of_agent(at, agent, params)), output, _candidates)
    else:
        body = {"type": task_type, "complexity": complexity or "medium", "inputTokens": input_tokens or 0}
        emit(run(_of_task(at, body, model)), output, _chosen)


async def _of_agent(at: At, agent: str, params: dict[str, str]) -> Any:
    async with at.client() as client:
        return await client.get(at.path("agents", agent, "models"), params)


async def _of_task(at: At, body: dict[str, Any], model: str | None) -> Any:
    async with at.client() as client:
        if model is not None:
            return {"estimate": await client.call("POST", f"{MODELS}/estimate", body={**body, "model": model})}
        selected = await client.call("POST", f"{MODELS}/select", body=body)
        estimate = await client.call("POST", f"{MODELS}/estimate", body={**body, "model": selected["model"]["id"]})
        return {**selected, "estimate": estimate}


def _candidates(found: dict[str, Any]) -> str:
    rows = [
        (number, one["profile"], f"{one['provider']}/{one['name']}", one["known"]["tier"] if one["known"] else "")
        for number, one in enumerate(found["candidates"], 1)
    ]
    lines = [table(("ASKED", "PROFILE", "MODEL", "TIER"), rows)] if rows else [f"no model may be asked: {found['problem']}"]
    rules = (rule for rule in found["rules"] if rule != found["problem"])  # what is wrong is the last of them
    return "\n".join([*lines, "", *rules])


def _chosen(found: dict[str, Any]) -> str:
    estimate = found["estimate"]
    cost = "unknown" if estimate["amount"] is None else f"{estimate['amount']} {estimate['currency']}"
    tokens = f"{estimate['inputTokens']} tokens in, {estimate['outputTokens']} out"
    said = f"{estimate['model']}: about {cost} for {tokens}"
    return "\n".join([said, "", *found["rules"]]) if "rules" in found else said


@settings_options(only=("data_dir", "models", "control_plane.database.driver", "control_plane.database.url", "secrets"))
@command.command("test", short_help="Make one small call with the settings here.", cls=SettingsCommand)
@click.argument("name", metavar="PROVIDER[/MODEL]")
@output_option
def test(loaded: Loaded, name: str, output: str) -> None:
    """Make one small call, with the settings that are found here, and say what came of it. Exit code 1 unless it was answered.

    Without MODEL the cheapest one that is known of the provider is asked. No server has to run; a key that is a secret is read from
    the database.

    \b
    Examples:
      talon model test openai
      talon model test claude/claude-haiku-4-5 -o json
      OPENAI_API_KEY=… talon model test openai/gpt-4o-mini
      talon model test vllm/llama3.1 --set providers.vllm.kind=openai --set providers.vllm.base_url=http://127.0.0.1:8000/v1
    """
    found = asyncio.run(_asked(loaded.settings, name))
    emit(found, output, _tested)
    if found["error"]:
        raise Failed(f"{found['model']} did not answer")


def _tested(found: dict[str, Any]) -> str:
    if found["error"]:
        return f"{found['model']}: {found['error']}: {found['detail']}"
    cost = f", {found['cost']['amount']} {found['cost']['currency']}" if found["cost"] else ""
    tokens = f"{found['input_tokens']} tokens in, {found['output_tokens']} out"
    return f"{found['model']}: answered in {found['duration_ms']} ms, {tokens}{cost}"


async def _asked(settings: Settings, name: str) -> dict[str, Any]:
    from talon.cli.configured import provider_configs
    from talon.cli.system import SystemClock
    from talon.domain.models import cost_of
    from talon.providers.catalogue import load_models
    from talon.providers.protocol import ChatMessage, ChatRequest, Finished, Key, ProviderError
    from talon.providers.registry import build_providers

    async def key_of(provider: str, given: str) -> Key:
        if provider == name.partition("/")[0] and secret_of(given) is not None:
            return await _secret(settings, provider, given)
        return given if secret_of(given) is None else ""

    provider, _, model = name.partition("/")
    if provider not in settings.providers:
        known = ", ".join(sorted(settings.providers)) or "none"
        raise WrongUse(f"no provider is named {provider!r} here; configured are: {known}")
    with found_here():
        providers = build_providers(await provider_configs(settings, key_of))
        models = load_models(providers.catalogue(), settings.models.catalogue)
    model = model or _cheapest(models, provider)
    clock = SystemClock()
    began_s = clock.monotonic_s()
    request = ChatRequest(model=model, messages=(ChatMessage(role="user", content=_QUESTION),), max_output_tokens=256)
    told: dict[str, Any] = {
        "model": f"{provider}/{model}",
        "error": "",
        "detail": "",
        "cost": None,
        "input_tokens": 0,
        "output_tokens": 0,
    }
    try:
        async for event in providers.get(provider).chat(request):
            if isinstance(event, Finished):
                known = models.find(provider, model)
                prices = known.prices if known else None
                told |= {"input_tokens": event.usage.input_tokens, "output_tokens": event.usage.output_tokens}
                cost = event.cost or (cost_of(event.usage, prices) if prices else None)
                told["cost"] = cost and {"amount": f"{cost.amount.normalize():f}", "currency": cost.currency}
    except ProviderError as error:
        told |= {"error": error.error, "detail": error.detail}
    finally:
        await providers.close()
    return told | {"duration_ms": int((clock.monotonic_s() - began_s) * 1000)}


def _cheapest(models: Models, provider: str) -> str:
    from talon.domain.models import ANY_MODEL, Task, cheapest_first

    found = cheapest_first([one for one in models if one.provider == provider and one.name != ANY_MODEL], Task(input_tokens=1000))
    if not found:
        raise WrongUse(f"no model of {provider!r} is known here: write {provider}/MODEL")
    return found[0].name


async def _secret(settings: Settings, provider: str, given: str) -> str:
    """The value of the secret that holds a provider's key, from the database. Nothing is made there."""
    from talon.cli.keyring import open_vault
    from talon.cli.runtime import open_store
    from talon.cli.system import SystemClock, SystemIds
    from talon.domain.errors import Unavailable

    namespace, name = secret_of(given) or ("", "")
    setting, clock, database = f"providers.{provider}.api_key", SystemClock(), database_of(settings)
    instead = f"for this call the key itself may stand in TALON_PROVIDERS_{provider.upper().replace('-', '_')}_API_KEY"
    nothing = f"{setting}: there is no secret {name!r} in {describe(database)} (`talon up` makes the database); {instead}"
    if isinstance(database, SqliteAt) and not database.path.exists():
        raise WrongUse(nothing)
    try:
        store = await open_store(settings, SystemIds(), clock)
    except Unavailable as error:
        raise Failed(f"{setting} is read from the database: {error.detail}; {instead}") from None
    try:
        if not (await store.schema_version())[0]:
            raise WrongUse(nothing)
        return await open_vault(settings, store, clock).read(namespace, name, "talon model test", setting)
    finally:
        await store.close()
