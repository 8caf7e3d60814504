"""What every payload is, and the parts that several share: tokens, money, what a vendor wants back."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, ClassVar

import msgspec


def always(value: Any) -> Any:
    """A default that is written out all the same: what clients read is in every entry, the rest only where it says something."""
    return msgspec.field(default_factory=lambda: value)


class Payload(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Base of all payloads; `type` is the entry's type."""

    type: ClassVar[str] = ""

    @property
    def min_reader(self) -> int:
        """The oldest reader that can fold it."""
        return 1

    @property
    def images(self) -> tuple[str, ...]:
        """Digests of the images' blobs that it speaks of."""
        return ()


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens of one or more model calls. `estimated` marks counts that no provider confirmed (a killed call).

    `cached_tokens` (read from the vendor's prompt cache) and `cache_write_tokens` (written to it) are part of `input_tokens`,
    `reasoning_tokens` are part of `output_tokens`, whatever the vendor's own way of adding them up.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    estimated: bool = False
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def plus(self, other: Usage) -> Usage:
        """The sum; estimated if either is."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.estimated or other.estimated,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


class Money(msgspec.Struct, frozen=True):
    """An exact amount of a currency; as JSON the amount is a decimal string."""

    amount: Decimal
    currency: str

    def __str__(self) -> str:
        return f"{self.amount.normalize():f} {self.currency}"


def total(costs: Iterable[Money | None]) -> tuple[Money, ...]:
    """The sum of each currency, in the order of their first amounts; what nobody knows the price of is not in it."""
    sums: dict[str, Decimal] = {}
    for cost in costs:
        if cost is not None:
            sums[cost.currency] = sums.get(cost.currency, Decimal(0)) + cost.amount
    return tuple(Money(amount, currency) for currency, amount in sums.items())


class Opaque(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a vendor wants back with an answer that called tools: signed or encrypted reasoning, unread, in its order.

    Good for `provider` and `model` (as it was asked for) alone. Each item is the vendor's own JSON text, or a place: `text N`
    stands for the next N characters of the answer's text, `call N` for its tool call number N from 0.
    """

    provider: str
    model: str
    items: tuple[str, ...] = ()
