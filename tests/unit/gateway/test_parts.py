"""A message's parts: what is refused, by which name, before any byte is kept; and what the journal has of the rest."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from support.pictures import GIF, JPEG, WEBP, image, png, text
from talon.domain.content import ImagePart, TextPart, image_type, images_of, text_of
from talon.domain.errors import Invalid, Malformed, Refused, TooLarge
from talon.gateway.api.parts import PARTS_MAX, check, kept
from talon.gateway.deps import GatewaySettings
from talon.gateway.http.message import decode_message
from talon.store.paging import blob_digest

SETTINGS = GatewaySettings(message_max=100, image_max=1000, images_max=2)
PNG = png()


def sent(content: Any) -> Any:
    """As it comes over HTTP."""
    return decode_message(msgspec.json.encode({"content": content})).content


@pytest.mark.parametrize(
    ("kind", "data"),
    [("image/png", PNG), ("image/jpeg", JPEG), ("image/gif", GIF), ("image/webp", WEBP), ("", b"%PDF-1.7"), ("", b"")],
)
def test_the_first_bytes_say_what_an_image_is(kind: str, data: bytes) -> None:
    assert image_type(data) == kind


def test_the_journal_has_the_parts_in_their_order_and_of_an_image_the_place_of_its_bytes() -> None:
    content = sent([text("one"), image(PNG), text("two"), image(JPEG, "image/jpeg"), image(PNG)])
    check(content, GatewaySettings())
    parts, blobs = kept(content, "acme")
    where = blob_digest("acme", PNG)
    picture = ImagePart("image/png", len(PNG), where)
    assert parts == (
        TextPart("one"),
        picture,
        TextPart("two"),
        ImagePart("image/jpeg", len(JPEG), blob_digest("acme", JPEG)),
        picture,
    )
    assert blobs == {where: PNG, blob_digest("acme", JPEG): JPEG}
    assert (text_of(parts), len(images_of(parts)), text_of("plain"), images_of("plain")) == ("one\ntwo", 3, "plain", ())
    assert kept("plain", "acme") == ("plain", {})


def test_an_image_needs_no_text_beside_it() -> None:
    check(sent([image(PNG)]), SETTINGS)


@pytest.mark.parametrize(
    ("content", "field", "says"),
    [
        ([], "content", "needs a part"),
        ([text(" ")], "content[0].text", "is empty"),
        ([image(PNG), text("a\0b")], "content[1].text", "NUL"),
        ([{"type": "image", "url": "https://example.com/a.png"}], "content[0].url", "base64"),
        ([image(PNG, "image/tiff")], "content[0].media_type", "must be one of image/png"),
        ([{"type": "image", "data": ""}], "content[0].media_type", "must be one of image/png"),
        ([image(b"")], "content[0].data", "is empty"),
        ([image(PNG, "image/jpeg")], "content[0].data", "begins as image/png does"),
        ([text("a"), image(b"<svg/>")], "content[1].data", "does not begin as image/png does"),
        ([{"type": "video", "data": ""}], "content[0].type", "'video'"),
        ([{"type": "image", "media_type": "image/png", "data": "no base64!"}], "content[0].data", "base64"),
        ([{"type": "text", "text": "a", "colour": "red"}], "content[0].colour", "unknown field"),
        (7, "content", "str"),
    ],
)
def test_what_is_wrong_with_a_part_is_named(content: Any, field: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        check(sent(content), SETTINGS)
    assert (caught.value.errors[0].field, says in caught.value.errors[0].message) == (field, True), caught.value.errors


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        ([text("a" * 60), text("b" * 41)], "100 (gateway.message_max_bytes)"),
        ("ä" * 51, "100 (gateway.message_max_bytes)"),
        ([image(png(1, 30))], "1000 (gateway.image_max_bytes)"),
        ([image(PNG)] * 3, "2 (gateway.message_images_max)"),
        ([text("a")] * (PARTS_MAX + 1), str(PARTS_MAX)),
    ],
)
def test_every_limit_is_named(content: Any, limit: str) -> None:
    with pytest.raises(TooLarge, match=limit.replace("(", r"\(").replace(")", r"\)")):
        check(sent(content), SETTINGS)


def test_a_body_that_is_no_json_is_malformed() -> None:
    with pytest.raises(Malformed):
        decode_message(b'{"content": [')
    with pytest.raises(Refused):
        decode_message(b'{"content": [{"type": "text", "text": "\\ud83d"}]}')
