"""What is Bedrock's own: its frames beside the vendor's own parser, signatures, credentials, tools of earlier calls, caching."""

from __future__ import annotations

import hashlib
import hmac
import os
import random
import re
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from support.chats import collect, end_of, failure
from support.rawserver import RawServer, answering, stream_head
from support.vendors.base import Says
from support.vendors.bedrock import ConverseFake, event, frame
from talon.providers.answer import Answer
from talon.providers.aws import chain
from talon.providers.bedrock import Bedrock
from talon.providers.dialect import FrameError
from talon.providers.eventstream import EventStream
from talon.providers.http import HttpProvider
from talon.providers.limits import CallLimits
from talon.providers.protocol import ChatEvent, ChatMessage, ChatRequest, Image, ProviderError, ToolCall, ToolDef

CLAUDE = "eu.anthropic.claude-sonnet-5-20260701-v1:0"
CALL = ToolCall("c1", "find", "{}")
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def sent(*messages: ChatMessage, model: str = CLAUDE, cached: bool = False, **fields: Any) -> dict[str, Any]:
    request = ChatRequest(model, messages or (ChatMessage("user", "hi"),), prompt_cache=cached, **fields)
    return msgspec.json.decode(Bedrock("https://x").body(request), type=dict[str, Any])


# --- frames ---------------------------------------------------------------------------------------------------------------------


def _events(body: bytes, size: int, line_max: int = 1 << 20) -> list[bytes]:
    frames = EventStream(line_max)
    events = [event for at in range(0, len(body), size) for event in frames.feed(body[at : at + size])]
    assert frames.rest() == b""
    return events


def test_frames_are_what_the_vendors_own_parser_reads_however_they_are_cut() -> None:
    body = b"".join(ConverseFake().stream(Says("wörd 😀", "Hm.", (CALL,), "tool_calls")))
    buffer: Any = import_module("botocore.eventstream").EventStreamBuffer()
    buffer.add_data(body)
    theirs = [{m.headers[":event-type"]: msgspec.json.decode(m.payload)} for m in buffer]
    for size in (1, 2, 13, 100, len(body)):
        assert [msgspec.json.decode(event) for event in _events(body, size)] == theirs


def test_no_changed_bit_and_no_missing_byte_goes_through() -> None:
    body = frame(b'{"delta":{"text":"Hello"}}', event_type="contentBlockDelta", message_type="event")
    seed = int(os.environ.get("TALON_TEST_SEED") or random.randrange(2**32))
    print(f"TALON_TEST_SEED={seed}")
    dice = random.Random(seed)
    for bit in (*range(8 * 12), *(dice.randrange(8 * len(body)) for _ in range(300))):
        damaged = bytearray(body)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameError):
            _events(bytes(damaged), len(body))
    for cut in range(1, len(body)):
        with pytest.raises(FrameError, match="in the middle of a frame"):
            _events(body[:cut], len(body))


def test_a_frame_above_the_limit_is_refused_by_its_first_bytes() -> None:
    with pytest.raises(FrameError, match=r"line_max \(1000 bytes\)"):
        EventStream(1000).feed(frame(b"x" * 2000)[:12])


def test_headers_of_every_type_are_read_over_and_an_error_of_the_stream_is_an_event() -> None:
    [event] = _events(frame(b"", message_type="error", error_code="InternalFailure", error_message="it broke"), 7)
    assert msgspec.json.decode(event) == {"exception": "InternalFailure", "fault": {"message": "it broke"}}


@pytest.mark.parametrize(
    ("exception", "error"),
    [
        ("throttlingException", "rate_limit"),
        ("validationException", "bad_request"),
        ("internalServerException", "server"),
        ("modelStreamErrorException", "server"),
        ("serviceUnavailableException", "server"),
        ("modelTimeoutException", "timeout"),
    ],
)
def test_an_exception_within_the_stream_has_its_class(exception: str, error: str) -> None:
    with pytest.raises(ProviderError, match="as the vendor says") as caught:
        read(frame(b'{"message":"as the vendor says"}', exception_type=exception, message_type="exception"))
    assert caught.value.error == error


@pytest.mark.parametrize(
    ("reason", "error"), [("malformed_tool_use", "malformed"), ("content_filtered", "content_filter"), ("refusal", "refusal")]
)
def test_a_reason_that_is_no_end_is_an_error(reason: str, error: str) -> None:
    with pytest.raises(ProviderError) as caught:
        read(event("messageStop", {"stopReason": reason})).finish()
    assert caught.value.error == error


def read(body: bytes) -> Answer:
    answer, out = Answer("main", ChatRequest(CLAUDE, ()), CallLimits()), list[ChatEvent]()
    reader = Bedrock("https://x").reader(answer)
    reader.take(_events(body, len(body)), out)
    return answer


# --- signatures -----------------------------------------------------------------------------------------------------------------


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _signature(request: bytes, secret: str) -> tuple[str, str]:
    """(the signature of a request as it came over the wire, the one that AWS would compute for it by its published steps)."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=AKID/(\d{8})/eu-west-3/bedrock/aws4_request, SignedHeaders=(.*), Signature=(\w+)",
        headers["authorization"],
    )
    assert found is not None, headers["authorization"]
    day, names, signature = found.groups()
    path = quote(first.split(" ")[1], safe="/~-_.")  # the path is encoded once more
    listed = "".join(f"{name}:{headers[name]}\n" for name in names.split(";"))
    canonical = "\n".join(["POST", path, "", listed, names, hashlib.sha256(body).hexdigest()])
    scope = f"{day}/eu-west-3/bedrock/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in (day, "eu-west-3", "bedrock", "aws4_request"):
        key = _hmac(key, part)
    assert {"host", "x-amz-date", "x-amz-security-token"} <= set(names.split(";"))
    return signature, _hmac(key, text).hex()


@pytest.mark.parametrize("model", [CLAUDE, "arn:aws:bedrock:eu-west-3:123456789012:inference-profile/eu.amazon.nova-pro-v1:0"])
async def test_what_goes_over_the_wire_is_what_was_signed(model: str) -> None:
    answer = answering(stream_head(), b"".join(ConverseFake().stream(Says("ok"))))
    async with RawServer(answer) as server:
        dialect = Bedrock(f"http://127.0.0.1:{server.port}", region="eu-west-3")
        provider = HttpProvider("main", dialect, f"AKID:{SECRET}:session/token+of=many==")
        end_of(await collect(provider, ChatRequest(model, (ChatMessage("user", "wörd"),))))
        await provider.close()
    theirs, ours = _signature(server.requests[0], SECRET)
    assert theirs == ours
    assert SECRET.encode() not in server.requests[0]


async def test_a_server_that_shows_what_was_signed_shows_no_part_of_the_credentials() -> None:
    token = "FwoGZXIvYXdzEBYaDExampleSessionToken"
    words = f"The canonical string should have been 'x-amz-security-token:{token}' by {SECRET}"
    body = msgspec.json.encode({"message": words})
    answer = answering(b"HTTP/1.1 403 No\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))
    async with RawServer(answer) as server:
        dialect = Bedrock(f"http://127.0.0.1:{server.port}", region="eu-west-3")
        provider = HttpProvider("main", dialect, f"AKID:{SECRET}:{token}")
        failed, _ = await failure(provider, ChatRequest(CLAUDE, ()))
        await provider.close()
    assert failed.error == "authentication"
    assert token not in failed.detail
    assert SECRET not in failed.detail


@pytest.mark.parametrize("credentials", ["AKID:", ":secret", "a:b:c:d"])
def test_credentials_that_are_none_are_refused_without_being_shown(credentials: str) -> None:
    dialect = Bedrock("https://bedrock-runtime.eu-west-3.amazonaws.com")
    with pytest.raises(ProviderError, match="ACCESS_KEY_ID:SECRET_ACCESS_KEY") as caught:
        dialect.headers(credentials, dialect.url(ChatRequest("m", ())), b"")
    assert caught.value.error == "unresolved"
    assert credentials not in caught.value.detail


async def test_credentials_are_found_as_aws_finds_them_and_their_absence_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    files = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(files))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    none, later = chain(), chain()
    assert callable(none)
    assert callable(later)
    with pytest.raises(ProviderError, match="there are no AWS credentials") as caught:
        await none()
    assert caught.value.error == "unresolved"
    files.write_text("[default]\naws_access_key_id = AKFILE\naws_secret_access_key = from-a-file\n")
    assert await none() == "AKFILE:from-a-file", "what was not there is looked for again"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    assert await later() == "AKENV:secret:token"


# --- requests -------------------------------------------------------------------------------------------------------------------


def test_a_tool_that_an_earlier_call_names_is_declared_although_it_is_not_offered() -> None:
    begun = (ChatMessage("user", "hi"), ChatMessage("assistant", "", (CALL,)), ChatMessage("tool", "", tool_call_id="c1"))
    body = sent(*begun)
    assert [tool["toolSpec"]["name"] for tool in body["toolConfig"]["tools"]] == ["find"]
    assert body["messages"][2]["content"][0]["toolResult"]["content"], "an empty result is refused"
    look = ToolDef("look", "", {"type": "object"})
    assert [tool["toolSpec"]["name"] for tool in sent(*begun, tools=(look,))["toolConfig"]["tools"]] == ["look", "find"]
    assert "toolConfig" not in sent(tools=(look,), tool_choice="none")


@pytest.mark.parametrize(
    ("choice", "sends"), [("auto", {"auto": {}}), ("required", {"any": {}}), ("find", {"tool": {"name": "find"}})]
)
def test_a_choice_of_tools(choice: str, sends: dict[str, Any]) -> None:
    tools = (ToolDef("find", "", {"type": "object"}),)
    assert sent(tools=tools, tool_choice=choice)["toolConfig"]["toolChoice"] == sends
    assert sent(tools=tools, tool_choice=choice, thinking="low")["toolConfig"]["toolChoice"] == {"auto": {}}


def test_only_claude_is_asked_to_think_and_older_ones_by_a_budget_with_a_bound() -> None:
    body = sent(model="anthropic.claude-3-7-sonnet-20250219-v1:0", thinking="medium", temperature=0.5)
    assert body["additionalModelRequestFields"] == {"thinking": {"type": "enabled", "budget_tokens": 4096}}
    assert body["inferenceConfig"] == {"maxTokens": 8192}
    nova = sent(model="amazon.nova-pro-v1:0", thinking="high", top_k=5, temperature=0.5)
    assert nova.keys() == {"messages", "inferenceConfig"}


@pytest.mark.parametrize(
    ("model", "marked"),
    [
        (CLAUDE, True),
        ("anthropic.claude-3-7-sonnet-20250219-v1:0", True),
        ("us.amazon.nova-lite-v1:0", True),
        ("anthropic.claude-3-haiku-20240307-v1:0", False),
        ("meta.llama3-70b-instruct-v1:0", False),
    ],
)
def test_a_cache_is_asked_of_models_that_have_one(model: str, marked: bool) -> None:
    body = sent(ChatMessage("system", "Be kind."), ChatMessage("user", "hi"), model=model, cached=True)
    assert ("cachePoint" in body["system"][-1], "cachePoint" in body["messages"][-1]["content"][-1]) == (marked, marked)


def test_blank_texts_are_not_sent_and_the_user_begins() -> None:
    body = sent(ChatMessage("assistant", " "), ChatMessage("user", "\n"))
    assert [(m["role"], m["content"]) for m in body["messages"]] == [
        ("user", [{"text": "(nothing)"}]),
        ("assistant", [{"text": "(nothing)"}]),
        ("user", [{"text": "(nothing)"}]),
    ]


def test_an_image_of_another_type_is_refused() -> None:
    with pytest.raises(ProviderError, match="image/tiff") as caught:
        sent(ChatMessage("user", parts=(Image("image/tiff", b"x"),)))
    assert caught.value.error == "bad_request"
