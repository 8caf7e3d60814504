"""Who may be called now: the circuits and quotas that all workers share, as one process sees and keeps them.

Circuits are looked at before a call (at most once a second the store is asked) and told what came of it; a quota is asked for each
call of a provider that has one. The steps themselves are `talon.domain.circuit` and `talon.domain.quota`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

from talon.domain import circuit as c
from talon.domain import quota as q
from talon.domain.entries import Money, Usage
from talon.domain.errors import Unavailable
from talon.domain.ids import Clock
from talon.domain.models import Models, cost_of
from talon.manifest.effective import Profile
from talon.store.shared import SharedStates

log = logging.getLogger(__name__)
CIRCUITS = "circuit/"
QUOTAS = "quota/"
#: What was read of the circuits is believed so long.
FRESH_S = 1.0


@dataclass(frozen=True, slots=True)
class Held:
    """A call that may not be made yet. `kind`: quota (it has a place in the queue) | circuit (ask again who may be asked)."""

    kind: str
    wait_ms: int
    detail: str


class Traffic:
    """One per process; for one event loop. `quotas` by provider; `models` for the price of a call."""

    def __init__(
        self, store: SharedStates, clock: Clock, quotas: Mapping[str, q.Quota] | None = None, models: Models | None = None
    ) -> None:
        self._store, self._clock = store, clock
        self._quotas = {name: quota for name, quota in (quotas or {}).items() if quota.limited}
        self.models = models or Models()
        self._circuits: dict[str, c.Circuit] = {}
        self._read_s = float("-inf")
        self._time: tuple[int, float] | None = None  # the store's time, and ours when we were told it

    # --- circuits ------------------------------------------------------------------------------------------------------------

    def resting(self, profiles: Sequence[Profile]) -> dict[str, int]:
        """Profiles that are better not asked now, with the milliseconds until they may be; as far as is known here."""
        if not self._circuits:
            return {}
        now_ms = self._now_ms()
        waits = {one.name: c.resting_ms(self._of(one), now_ms) for one in profiles}
        return {name: wait for name, wait in waits.items() if wait}

    def may_be_held(self, profile: Profile) -> bool:
        """Whether a call of it must ask first (`admit`)."""
        return profile.provider in self._quotas or not self._of(profile).clean

    def size(self, profile: Profile, tokens: Callable[[], int]) -> int:
        """What a call asks of its provider's quota of tokens; 0, and not counted, where there is none."""
        quota = self._quotas.get(profile.provider)
        return tokens() if quota is not None and quota.tokens else 0

    async def admit(self, profile: Profile, ticket: str, namespace: str, tokens: Callable[[], int], *, anyway: bool) -> Held | None:
        """Ask for one call of about `tokens`; None: it may go. `ticket` is the same each time that the same call asks; `anyway`:
        also while its circuit is open.

        While the store cannot be asked the answer is None: the call's own intent is committed before it is made, and that waits
        for the store. To raise here would lose the receipts that go into the same commit.
        """
        try:
            return await self._admit(profile, ticket, namespace, tokens, anyway=anyway)
        except Unavailable as error:
            log.warning("circuits and quotas cannot be read, %s is asked all the same: %s", _key(profile), error.detail)
            return None

    async def _admit(
        self, profile: Profile, ticket: str, namespace: str, tokens: Callable[[], int], *, anyway: bool
    ) -> Held | None:
        if not anyway:
            await self._look()
            wait = c.resting_ms(self._of(profile), self._now_ms())
            if wait or not await self._tried(profile):
                return Held("circuit", wait, f"the circuit of {_key(profile)} is open")
        quota = self._quotas.get(profile.provider)
        if quota is None:
            return None
        size = self.size(profile, tokens)

        def take(state: bytes, now_ms: int) -> tuple[bytes, int]:
            after, wait_ms = q.take(q.decode(state), quota, ticket, namespace, size, now_ms)
            return q.encode(after), wait_ms

        wait_ms = await self._store.change_shared(QUOTAS + profile.provider, take)
        if not wait_ms:
            return None
        kept = ((quota.requests, "requests"), (quota.tokens, "tokens"))
        limits = " and ".join(f"{most} {what}" for most, what in kept if most) + " a minute"
        return Held("quota", wait_ms, f"the quota of providers.{profile.provider} is used up: {limits}")

    async def went_well(self, profile: Profile, asked: int, usage: Usage) -> None:
        """A call was answered; it had asked for `asked` tokens. What cannot be kept is not: the answer matters more."""
        with _kept_if_possible(profile):
            if not self._of(profile).clean:
                await self._step(profile, lambda circuit, _: c.Circuit())
            await self._settle(profile, asked, usage)

    async def went_wrong(self, profile: Profile, asked: int, usage: Usage, error: str, retry_after_s: float | None) -> None:
        """A call failed. What cannot be kept is not."""
        with _kept_if_possible(profile):
            if error in c.UNHEALTHY:
                wait_ms = int(retry_after_s * 1000) if retry_after_s and error in ("rate_limit", "overloaded", "server") else None
                await self._step(profile, lambda circuit, now_ms: c.failed(circuit, now_ms, wait_ms))
            await self._settle(profile, asked, usage)

    async def _settle(self, profile: Profile, asked: int, usage: Usage) -> None:
        quota = self._quotas.get(profile.provider)
        more = usage.input_tokens + usage.output_tokens - asked
        if quota is not None and quota.tokens and more:

            def settle(state: bytes, _: int) -> tuple[bytes, None]:
                return q.encode(q.settle(q.decode(state), more)), None

            await self._store.change_shared(QUOTAS + profile.provider, settle)

    async def _tried(self, profile: Profile) -> bool:
        """Whether this call may try a circuit that is half open; of several that ask at once, one may."""
        if not c.needs_probe(self._of(profile), self._now_ms()):
            return True

        def probe(state: bytes, now_ms: int) -> tuple[bytes, tuple[c.Circuit, bool, int]]:
            after, may = c.probe(c.decode(state), now_ms)
            return c.encode(after), (after, may, now_ms)

        after, may, now_ms = await self._store.change_shared(CIRCUITS + _key(profile), probe)
        self._learn(_key(profile), after, now_ms)
        return may

    async def _step(self, profile: Profile, step: Callable[[c.Circuit, int], c.Circuit]) -> None:
        def change(state: bytes, now_ms: int) -> tuple[bytes, tuple[c.Circuit, int]]:
            after = step(c.decode(state), now_ms)
            return c.encode(after), (after, now_ms)

        after, now_ms = await self._store.change_shared(CIRCUITS + _key(profile), change)
        self._learn(_key(profile), after, now_ms)

    async def _look(self) -> None:
        if self._clock.monotonic_s() - self._read_s < FRESH_S:
            return
        states, now_ms = await self._store.read_shared(CIRCUITS)
        self._circuits = {name.removeprefix(CIRCUITS): c.decode(state) for name, state in states.items()}
        self._read_s = self._clock.monotonic_s()
        self._time = (now_ms, self._read_s)

    def _learn(self, key: str, circuit: c.Circuit, now_ms: int) -> None:
        if circuit.clean:
            self._circuits.pop(key, None)
        else:
            self._circuits[key] = circuit
        self._time = (now_ms, self._clock.monotonic_s())

    def _now_ms(self) -> int:
        """The store's time, as far as it is known here."""
        return 0 if self._time is None else self._time[0] + int((self._clock.monotonic_s() - self._time[1]) * 1000)

    def _of(self, profile: Profile) -> c.Circuit:
        return self._circuits.get(_key(profile)) or c.Circuit()

    # --- money ---------------------------------------------------------------------------------------------------------------

    def cost(self, profile: Profile, usage: Usage) -> Money | None:
        """What a call cost by the catalogue of this process; None where the model's price is not known."""
        known = self.models.find(profile.provider, profile.model)
        return cost_of(usage, known.prices) if known is not None and known.prices is not None else None


@contextlib.contextmanager
def _kept_if_possible(profile: Profile) -> Generator[None]:
    try:
        yield
    except Unavailable as error:
        log.warning("what a call of %s says about its circuit and quota is not kept: %s", _key(profile), error.detail)


def _key(profile: Profile) -> str:
    return f"{profile.provider}/{profile.model}"
