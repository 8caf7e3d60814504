"""Pieces of requests that more than one vendor needs."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from talon.domain.entries import Opaque
from talon.providers.content import CALL_ID_MAX, Kept, call_id, laid_out
from talon.providers.protocol import ChatMessage, ToolCall

CALLS = (ToolCall("a", "one", "{}"), ToolCall("b", "two", "{}"))


@given(st.text(max_size=100))
def test_an_id_is_always_one_that_every_vendor_takes_and_differs_where_it_should(text: str) -> None:
    made = call_id(text)
    assert re.fullmatch(r"[a-zA-Z0-9_-]+", made)
    assert len(made) <= CALL_ID_MAX
    assert made == call_id(text)
    assert call_id(text + ":") != call_id(text + ".")


def test_an_ordinary_id_is_left_alone() -> None:
    assert call_id("toolu_01A09q90qw90lq917835lq9") == "toolu_01A09q90qw90lq917835lq9"


def test_a_message_is_laid_out_in_the_order_in_which_the_model_gave_it() -> None:
    items = ('{"type":"t1"}', "text 5", "call 0", '{"type":"t2"}', "call 1")
    message = ChatMessage("assistant", "Hello", CALLS, opaque=Opaque("p", "m", items))
    laid = [bytes(item.json).decode() if isinstance(item, Kept) else item for item in laid_out(message)]
    assert laid == ['{"type":"t1"}', "Hello", CALLS[0], '{"type":"t2"}', CALLS[1]]


def test_places_that_do_not_fit_lose_nothing() -> None:
    message = ChatMessage("assistant", "Hello, you", CALLS, opaque=Opaque("p", "m", ("call 7", "text 5", "call 1")))
    assert list(laid_out(message)) == ["Hello", CALLS[1], ", you", CALLS[0]]
    assert list(laid_out(ChatMessage("assistant", "Hello", CALLS))) == ["Hello", *CALLS]
