"""Which models a turn may ask, in which order, and why, rule by rule. Pure; gateways explain by it what workers do by it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from talon.domain.models import TIERS, Models, Task
from talon.domain.session import SessionConfig
from talon.manifest.effective import Effective, Profile, Route

#: Tiers of data: public, internal, confidential.
DATA_TIERS = (0, 1, 2)


class Wanted(msgspec.Struct, frozen=True):
    """For which turn: its session's `profile` and `config`, its `task`, and the tier of the data that it works on."""

    profile: str = ""
    config: SessionConfig = SessionConfig()
    task: Task = Task()
    data_tier: int = 0


class Choice(msgspec.Struct, frozen=True):
    """The models to ask, in order. `windows` are those context windows that are known, by profile; `blind` are the profiles whose
    models are known to take no images, `continuing` those that may go on with a broken answer. `left_out` are those that nobody
    serves, each with the reason. `rules` say why it came so. Without profiles `rules` ends with what is wrong."""

    profiles: tuple[Profile, ...]
    windows: dict[str, int]
    rules: tuple[str, ...]
    blind: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    continuing: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """What keeps the turn from asking any model; empty if nothing does."""
        return "" if self.profiles else self.rules[-1]


class Say:
    """Takes down the rules as they are applied, and what fell out by them."""

    def __init__(self) -> None:
        self.rules: list[str] = []
        self.left_out: dict[str, None] = {}

    def __call__(self, rule: str) -> None:
        self.rules.append(rule)

    def leave_out(self, rule: int, name: str, why: str) -> None:
        """A model that cannot be asked."""
        self.left_out[f"{name}: {why}"] = None
        self(f"{rule} {name} is left out: {why}")


class _Nothing(Exception):
    """No model may be asked; the message is for the user."""


def task_of(effective: Effective) -> Task:
    """What a turn of the agent is: orchestration where it may call tools, else chat; of medium complexity."""
    tools = bool(effective.tool_refs or effective.allowed_tools)
    return Task("orchestration" if tools else "chat", "medium")


def choose(effective: Effective, wanted: Wanted, served: Sequence[str], models: Models) -> Choice:
    """The models for a turn of an agent, of the providers that are `served`.

    1 the route of the data's tier, where `policies.model_routing` has one, else the profiles of `modelPolicy`
    2 of profiles: as written, or (`select: task`) those of the task's tier first
    3 the one profile that the session, or else the agent, names
    4 the model that the session's config names comes first
    5 what no configured provider serves is left out
    6 the session's thinkingLevel takes the place of the profiles' own
    7 a model that is known to take no images is passed over while a message of the turn has one
    8 an answer that breaks off is gone on with by a model that can, else it is begun again

    Where a route holds, 3 and 4 choose among its models only.
    """
    say = Say()
    try:
        found = _choose(effective, wanted, served, models, say)
    except _Nothing as nothing:
        return Choice((), {}, (*say.rules, str(nothing)), left_out=tuple(say.left_out))
    blind = tuple(one.name for one in found if models.is_blind(one.provider, one.model))
    if blind:
        say(f"7 passed over while a message of the turn has an image: {', '.join(blind)}")
    continuing = tuple(one.name for one in found if _goes_on(one, models))
    if continuing:
        say(f"8 may go on with an answer that broke off: {', '.join(continuing)}")
    windows = {one.name: known.context_window for one in found if (known := models.find(one.provider, one.model)) is not None}
    known_windows = {name: window for name, window in windows.items() if window}
    return Choice(found, known_windows, tuple(say.rules), blind, tuple(say.left_out), continuing)


def _goes_on(profile: Profile, models: Models) -> bool:
    """Whether a model may go on with its broken answer: it is known to (`prefill`), is not told otherwise, and neither thinks nor
    follows a schema nor is forced to call a tool, with which no vendor allows it."""
    known = models.find(profile.provider, profile.model)
    plain = profile.thinking in ("", "off") and profile.answer_schema is None and profile.tool_choice in ("", "auto", "none")
    return known is not None and known.prefill and plain and profile.on_broken_stream != "reset"


def _choose(effective: Effective, wanted: Wanted, served: Sequence[str], models: Models, say: Say) -> tuple[Profile, ...]:
    route = _route(effective, wanted.data_tier)
    if route is not None:
        tier, written = route
        found = _routed(effective, written, served, models, say)
        say(f"1 model_routing.tier_{tier} for data of tier {wanted.data_tier}: {_names(found)}")
    else:
        found = effective.profiles
        if not found:
            raise _Nothing(
                f"no route of model_routing is for data of tier {wanted.data_tier}, and there are no modelPolicy.profiles"
            )
        say(f"1 modelPolicy.profiles, {'no model_routing' if not effective.routing else 'no route'}: {_names(found)}")
        found = _by_task(effective, found, wanted.task, models, say)
    found = _named(effective, found, wanted.profile, say, routed=route is not None)
    found = _first(effective, found, wanted.config.model, served, models, say, routed=route is not None)
    left = tuple(one for one in found if one.provider in served)
    for one in found:
        if one not in left:
            say.leave_out(5, one.name, f"no provider {one.provider!r} is configured")
    if not left:
        names = ", ".join(sorted({repr(one.provider) for one in found}))
        raise _Nothing(f"no provider {names} is configured (providers.NAME in talon.yaml)")
    level = wanted.config.thinking_level
    if level:
        say(f"6 the session's thinkingLevel: {level}")
        left = tuple(msgspec.structs.replace(one, thinking=level) for one in left)
    return left


def _names(profiles: Sequence[Profile]) -> str:
    return ", ".join(f"{one.name} ({one.provider}/{one.model})" for one in profiles)


def _route(effective: Effective, tier: int) -> tuple[int, Route] | None:
    """The route of the tier, or of the nearest one whose data is more confidential; none below is taken."""
    at = min((int(one) for one in effective.routing if int(one) >= tier), default=None)
    return None if at is None else (at, effective.routing[str(at)])


def _routed(effective: Effective, route: Route, served: Sequence[str], models: Models, say: Say) -> tuple[Profile, ...]:
    found: dict[tuple[str, str], Profile] = {}
    for name in (route.primary, *route.fallback):
        one = _meant(effective, name, served, models)
        if one is None:
            say.leave_out(1, name, "no profile, and no model that a configured provider is known to have")
        else:
            found.setdefault((one.provider, one.model), one)
    if not found:
        raise _Nothing(f"model_routing names no model that is served here ({', '.join((route.primary, *route.fallback))})")
    return tuple(found.values())


def _by_task(effective: Effective, profiles: tuple[Profile, ...], task: Task, models: Models, say: Say) -> tuple[Profile, ...]:
    if effective.select != "task":
        say("2 in the order in which they are written")
        return profiles
    wanted = TIERS.index(task.tier)

    def distance(profile: Profile) -> int:
        known = models.find(profile.provider, profile.model)
        return len(TIERS) if known is None else abs(TIERS.index(known.tier) - wanted)

    ordered = tuple(sorted(profiles, key=distance))
    say(f"2 a {task.type} task of {task.complexity} complexity wants tier {task.tier}, the nearest tier first: {_names(ordered)}")
    return ordered


def _named(
    effective: Effective, profiles: tuple[Profile, ...], session_profile: str, say: Say, *, routed: bool
) -> tuple[Profile, ...]:
    name = session_profile or effective.profile
    if not name:
        return profiles
    found = tuple(one for one in profiles if one.name == name)
    if not found:
        where = "the route of its data names no" if routed else f"agent {effective.name!r} has no"
        raise _Nothing(f"{where} model profile {name!r}")
    say(f"3 the {'session' if session_profile else 'agent'} names the profile {name}, which is asked alone")
    return found


def _first(
    effective: Effective,
    profiles: tuple[Profile, ...],
    model: str,
    served: Sequence[str],
    models: Models,
    say: Say,
    *,
    routed: bool,
) -> tuple[Profile, ...]:
    if not model:
        return profiles
    one = _meant(effective, model, served, models)
    if one is None:
        known = ", ".join(sorted(served)) or "none"
        raise _Nothing(
            f"the session's model {model!r} is no profile, and no configured provider is known to have it; "
            f"write provider/model, with one of the providers that are configured: {known}"
        )
    same = [other for other in profiles if (other.provider, other.model) == (one.provider, one.model)]
    if routed and not same:
        raise _Nothing(f"the session's model {model!r} is not one of the route that holds for its data: {_names(profiles)}")
    first = same[0] if same and one not in same else one
    say(f"4 the session's config names {model}: {_names([first])} is asked first")
    return (first, *(other for other in profiles if other not in same and other.name != first.name))


def _meant(effective: Effective, name: str, served: Sequence[str], models: Models) -> Profile | None:
    """What `name` stands for: a profile; `provider/model`; a model's name that a profile has, or a provider is known to have."""
    for one in effective.profiles:
        if name == one.name:
            return one
    provider, slash, model = name.partition("/")
    if slash and model and provider in served:
        same = (one for one in effective.profiles if (one.provider, one.model) == (provider, model))
        return next(same, None) or Profile(name, provider, model)
    for one in effective.profiles:
        if name == one.model and one.provider in served:
            return one
    known = models.providers_of(name, served)
    return Profile(f"{known[0]}/{name}", known[0], name) if known else None
