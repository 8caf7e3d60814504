"""The configured providers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.chats import ask, collect, failure, text_of
from talon.domain.errors import Invalid
from talon.providers.aws import signed
from talon.providers.limits import CallLimits
from talon.providers.protocol import ProviderError
from talon.providers.registry import ProviderConfig, ProviderInfo, build_providers


async def test_providers_are_found_by_name_and_made_once(tmp_path: Path) -> None:
    script = tmp_path / "s.yaml"
    script.write_text("default: {text: hi}")
    providers = build_providers(
        {"main": ProviderConfig("openai", api_key="k"), "fake": ProviderConfig("scripted", script=str(script))}
    )
    assert providers.get("main") is providers.get("main")
    assert providers.get("main").name == "main"
    assert text_of(await collect(providers.get("fake"), ask())) == "hi"
    assert providers.catalogue() == [ProviderInfo("fake", "scripted"), ProviderInfo("main", "openai", "https://api.openai.com/v1")]
    await providers.close()
    error, _ = await failure(providers.get("main"))
    assert error.error == "connection"


def test_an_unknown_name_is_unresolved_and_the_known_ones_are_told() -> None:
    with pytest.raises(ProviderError, match="'nope'; configured are: a, b") as caught:
        build_providers({"b": ProviderConfig("openai"), "a": ProviderConfig("openai")}).get("nope")
    assert caught.value.error == "unresolved"
    with pytest.raises(ProviderError, match="none"):
        build_providers({}).get("nope")


def test_the_key_is_in_no_repr_and_no_catalogue() -> None:
    config = ProviderConfig("openai", api_key="sk-secret")
    providers = build_providers({"a": config})
    assert "sk-secret" not in repr(config) + repr(providers.catalogue()) + repr(providers.get("a")) + repr(vars(providers))


@pytest.mark.parametrize(
    ("name", "config", "field"),
    [
        ("a", ProviderConfig("vertex"), "providers.a.kind"),
        ("a", ProviderConfig("bedrock", api_key="k"), "providers.a.region"),
        ("a", ProviderConfig("bedrock", api_key="k", region="Frankfurt!"), "providers.a.region"),
        ("a", ProviderConfig("bedrock", api_key="a:b", base_url="http://127.0.0.1:1"), "providers.a.region"),
        ("a", ProviderConfig("openai", region="eu-central-1"), "providers.a.region"),
        ("a", ProviderConfig("gemini", max_tokens_field="max_tokens"), "providers.a.max_tokens_field"),
        ("A b", ProviderConfig("openai"), "providers.A b"),
        ("a", ProviderConfig("scripted"), "providers.a.script"),
        ("a", ProviderConfig("scripted", script="/none.yaml"), "providers.a.script"),
        ("a", ProviderConfig("openai", script="x.yaml"), "providers.a.script"),
        ("a", ProviderConfig("openai", base_url="ftp://x"), "providers.a.base_url"),
        ("a", ProviderConfig("openai", base_url="localhost:11434"), "providers.a.base_url"),
        ("a", ProviderConfig("openai", base_url="http://user:pw@x/v1"), "providers.a.base_url"),
        ("a", ProviderConfig("openai", base_url="http://x:99999/v1"), "providers.a.base_url"),
        ("a", ProviderConfig("openai", api_key="sk-1\n"), "providers.a.api_key"),
        ("a", ProviderConfig("openai", limits=CallLimits(idle_s=0)), "providers.a.idle_s"),
    ],
)
def test_a_wrong_configuration_is_refused_by_field(name: str, config: ProviderConfig, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        build_providers({name: config})
    assert [error.field for error in caught.value.errors] == [field]
    assert "pw@" not in caught.value.detail
    assert "sk-1" not in caught.value.detail


def test_calls_that_are_to_be_signed_need_the_extra_and_those_with_a_key_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("talon.providers.registry.find_spec", {"botocore": None}.get)
    for key in ("", "AKID:secret"):
        with pytest.raises(Invalid, match=r"talon-runtime\[bedrock\]"):
            build_providers({"a": ProviderConfig("bedrock", api_key=key, region="eu-west-3")})
    build_providers({"a": ProviderConfig("bedrock", api_key="a-bedrock-key", region="eu-west-3")})
    monkeypatch.setitem(sys.modules, "botocore.awsrequest", None)
    with pytest.raises(ProviderError, match=r"talon-runtime\[bedrock\]") as caught:
        signed("AKID:secret", "bedrock", "eu-west-3", "https://x", {}, b"")
    assert caught.value.error == "unresolved"


def test_nobody_loads_the_libraries_of_vendors_before_they_are_called() -> None:
    program = "import sys, talon.cli.main, talon.cli.load; print([m for m in ('botocore', 'aiohttp') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
