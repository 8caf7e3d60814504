"""What is sealed opens for its own resource under its own key, and for nothing else: every byte counts."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talon.vault.envelope import SEALED_MIN_BYTES, Key, Unreadable, owner_of, rewrap, seal, unseal, value_tag

KEY, OTHER = Key(bytes(range(32))), Key(bytes(range(1, 33)))
OWNER = owner_of("acme:eu", "openai", "0190-uid")
keys = st.binary(min_size=32, max_size=32).map(Key)


@given(keys, st.binary(max_size=300))
@settings(deadline=None)
def test_what_is_sealed_opens_and_nothing_of_it_is_in_the_bytes(key: Key, value: bytes) -> None:
    sealed = seal(key, OWNER, value)
    assert unseal(key, OWNER, sealed) == value
    assert len(sealed) == SEALED_MIN_BYTES + len(value)
    assert len(value) < 8 or value not in sealed
    assert key.material not in sealed


def test_every_flipped_bit_is_refused() -> None:
    sealed = seal(KEY, OWNER, b"sk-live-1")
    for place in range(len(sealed) * 8):
        broken = bytearray(sealed)
        broken[place // 8] ^= 1 << place % 8
        with pytest.raises(Unreadable) as caught:
            unseal(KEY, OWNER, bytes(broken))
        assert caught.value.args == ()
        assert caught.value.__cause__ is None
        with pytest.raises(Unreadable):
            rewrap(KEY, OTHER, OWNER, bytes(broken))


def test_every_truncation_and_every_longer_form_is_refused() -> None:
    sealed = seal(KEY, OWNER, b"sk-live-1")
    for cut in (
        [sealed[:n] for n in range(len(sealed))] + [sealed[n:] for n in range(1, len(sealed))] + [sealed + b"\0", sealed * 2]
    ):
        with pytest.raises(Unreadable):
            unseal(KEY, OWNER, cut)


@given(keys, keys)
@settings(deadline=None, max_examples=30)
def test_another_key_opens_nothing(key: Key, other: Key) -> None:
    sealed = seal(key, OWNER, b"value")
    if key != other:
        with pytest.raises(Unreadable):
            unseal(other, OWNER, sealed)


@given(
    st.lists(st.text("ab:-", min_size=1, max_size=5), min_size=3, max_size=3),
    st.lists(st.text("ab:-", min_size=1), min_size=3, max_size=3),
)
@settings(deadline=None)
def test_a_row_that_is_moved_does_not_open(here: list[str], there: list[str]) -> None:
    one, two = owner_of(here[0], here[1], here[2]), owner_of(there[0], there[1], there[2])
    assert (one == two) == (here == there)
    sealed = seal(KEY, one, b"value")
    if here != there:
        with pytest.raises(Unreadable):
            unseal(KEY, two, sealed)


def test_parts_of_two_sealed_values_of_one_resource_do_not_fit_together() -> None:
    one, two = seal(KEY, OWNER, b"one"), seal(KEY, OWNER, b"two")
    with pytest.raises(Unreadable):
        unseal(KEY, OWNER, one[:61] + two[61:])
    key_for_value = one[:1] + one[61:] + one[1:61]
    with pytest.raises(Unreadable):
        unseal(KEY, OWNER, key_for_value)


@given(st.binary(max_size=64))
@settings(deadline=None)
def test_wrapping_anew_changes_the_key_and_not_the_value(value: bytes) -> None:
    old = seal(KEY, OWNER, value)
    new = rewrap(KEY, OTHER, OWNER, old)
    assert unseal(OTHER, OWNER, new) == value
    assert new[61:] == old[61:]
    assert value_tag(new) == value_tag(old)
    with pytest.raises(Unreadable):
        unseal(KEY, OWNER, new)


def test_the_same_value_never_looks_the_same() -> None:
    assert len({seal(KEY, OWNER, b"v") for _ in range(100)}) == 100
    assert len({seal(KEY, OWNER, b"v")[1:13] for _ in range(100)}) == 100, "a nonce was used twice"


def test_a_key_shows_its_id_and_nothing_else() -> None:
    key = Key.generate()
    assert key != Key.generate()
    assert key.material.hex() not in repr(key)
    assert key.id != hashlib.sha256(key.material).hexdigest()[:16]
    assert repr(key) == f"Key({key.id})"
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        Key(bytes(31))
