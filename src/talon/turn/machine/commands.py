"""What `decide` may ask for. Each names only what it needs; the runner performs it and appends what happened."""

from __future__ import annotations

import msgspec

from talon.domain.entries import Payload


class Begin(msgspec.Struct, frozen=True):
    """Pin the definition and write `turn.started` (or end it as denied if something it needs does not exist)."""


class CallModel(msgspec.Struct, frozen=True):
    """Announce a call of profile number `profile`; `joined` are the seqs of steering messages that the model sees from now on.
    `anyway`: also while its circuit is open, since no other one is left and it was waited for. `continues`: it goes on with the
    broken answer of that seq, from `offset` characters on; `drops`: clients drop that one's text.

    The call itself is made by `Listen`, once its `model.started` is durable.
    """

    iteration: int
    attempt: int
    profile: int
    joined: tuple[int, ...] = ()
    anyway: bool = False
    continues: int = 0
    offset: int = 0
    drops: int = 0


class Listen(msgspec.Struct, frozen=True):
    """Make the announced model call and take its answer."""

    model_seq: int


class ResetStream(msgspec.Struct, frozen=True):
    """Account for a model call whose worker is gone. Its partial text, named by `model_seq`, is dropped; with `may_keep` it stands
    if a model can go on with it."""

    model_seq: int
    may_keep: bool = False


class RunTools(msgspec.Struct, frozen=True):
    """What to do about open calls, by number.

    run       start (or, under the same key, start again)
    probe     ask the tool what became of an orphaned call
    uncertain write `tool.uncertain` and open an approval
    settle    a human said `done` or `failed`: write the receipt in his name
    """

    run: tuple[int, ...] = ()
    probe: tuple[int, ...] = ()
    uncertain: tuple[int, ...] = ()
    settle: tuple[int, ...] = ()


class Wait(msgspec.Struct, frozen=True):
    """Become a row (K6). `kind`: approval | backoff | quota. `delay_ms` is set for a timer."""

    kind: str
    approvals: tuple[str, ...] = ()
    delay_ms: int | None = None
    detail: str = ""


class Finish(msgspec.Struct, frozen=True):
    """End the turn with `end`. `requeue` are steering messages that it never saw: each becomes a turn of its own.

    `uncertain` are unsafe calls without receipt, written as such before the end; `abandon` are the other open calls.
    """

    end: Payload
    requeue: tuple[int, ...] = ()
    uncertain: tuple[int, ...] = ()
    abandon: tuple[int, ...] = ()


Command = Begin | CallModel | Listen | ResetStream | RunTools | Wait | Finish
