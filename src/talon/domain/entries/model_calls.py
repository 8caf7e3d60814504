"""The calls of models: begun, answered, failed, and taken back."""

from __future__ import annotations

from talon.domain.entries.payload import Money, Opaque, Payload, Usage, always


class ModelStarted(Payload, frozen=True, kw_only=True):
    """A model call is about to be made. Its `seq` names the fragments that stream from it; where it goes on with a broken answer,
    `continues` does, the call which began that: its text goes on at `offset` characters."""

    type = "model.started"
    iteration: int
    provider: str
    model: str
    profile: str = ""
    attempt: int = always(1)
    continues: int = 0
    offset: int = 0

    @property
    def min_reader(self) -> int:
        return 2 if self.continues else 1


class ModelFinished(Payload, frozen=True, kw_only=True):
    """A model answered. `content` is empty when the text is the turn's answer: then `message.completed` holds it, once.
    The `calls` tool calls of the answer are the `tool.requested` entries that follow in the same commit. `opaque` is what the
    vendor wants back with them. No `cost`: the model's price is not known. `cost_source` is `reported` where the vendor said what
    it costs; else it is reckoned by the worker's catalogue."""

    type = "model.finished"
    stop_reason: str
    content: str = ""
    reasoning: str = ""
    calls: int = 0
    usage: Usage = Usage()
    model: str = ""
    duration_ms: int = 0
    opaque: Opaque | None = None
    cost: Money | None = None
    cost_source: str = ""


class ModelFailed(Payload, frozen=True, kw_only=True):
    """A model call failed. `error` is a class: timeout | connection | rate_limit | overloaded | server | authentication |
    bad_request | context_overflow | content_filter | refusal | malformed | empty | unresolved | cancelled | worker_lost.
    `cost_source` as in `model.finished`.

    `kept`: so many characters of its answer stand, and the next call goes on from there, unless a `stream.reset` says otherwise.
    `worker_lost` is only said with it: the worker that listened is gone."""

    type = "model.failed"
    error: str
    detail: str = ""
    status: int | None = None
    retryable: bool = False
    retry_after_s: float | None = None
    usage: Usage = Usage()
    cost: Money | None = None
    cost_source: str = ""
    kept: int = 0

    @property
    def min_reader(self) -> int:
        return 2 if self.kept else 1


class StreamReset(Payload, frozen=True, kw_only=True):
    """Clients drop the text that they have of the model call `model_seq`; it will be asked again (K4)."""

    type = "stream.reset"
    model_seq: int
    reason: str = ""
    usage: Usage = Usage()
    cost: Money | None = None
