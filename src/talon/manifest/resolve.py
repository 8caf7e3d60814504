"""Template + agent -> the effective agent, and the choice of its model profile."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from pydantic import ValidationError

from talon.domain.errors import Defect
from talon.manifest import kinds
from talon.manifest.agents import Capabilities, Definition, LimitsDecl, flat
from talon.manifest.complaints import nearest
from talon.manifest.document import Complaint, Path
from talon.manifest.effective import AnswerForm, Effective, Limits, Profile, Route, encode
from talon.manifest.features import wrong_features
from talon.manifest.models import Model, ModelPolicy, Policies
from talon.manifest.within import declared, unknown_places


@dataclass(frozen=True, slots=True)
class Resolved:
    """An agent after resolution: `body` is `effective` encoded, `digest` its SHA-256, by which revisions are told apart."""

    effective: Effective
    body: bytes
    digest: str


def load(body: bytes) -> kinds.Doc:
    """A stored manifest, typed. Raises `Defect` if it is none: only checked ones are stored."""
    try:
        data = cast(dict[str, Any], msgspec.json.decode(body))
        return kinds.DOCS[data["kind"]].model_validate(data)
    except (msgspec.DecodeError, KeyError, TypeError, ValidationError) as error:
        raise Defect("defect", f"a stored manifest cannot be read: {type(error).__name__}") from error


def template_of(agent: kinds.AgentDoc) -> str:
    """The name of the template that an agent refers to, or nothing."""
    return agent.spec.template_ref.name if agent.spec.template_ref else ""


def resolve(agent: kinds.AgentDoc, namespace: str, template: Definition | None) -> Resolved | list[Complaint]:
    """The agent as turns run it, or every reason why it is none. `template` is what its `templateRef` names, if it has one.

    An agent's own part replaces that of its template or definition; limits replace one by one.
    """
    base = flat(template or agent.definition or agent.spec.definition or Definition())
    spec = agent.spec
    features = declared(base)
    wrong: list[Complaint] = [
        (("spec", "features", name), message, value) for name, message, value in wrong_features(features, spec.features)
    ]
    if spec.system_prompt is not None:
        wrong += unknown_places(("spec", "systemPrompt"), spec.system_prompt, features)
    policy = spec.model_policy or base.model_policy
    profiles = _profiles(policy)
    routing = _routing(spec.policies or base.policies)
    if not profiles and not routing:
        message = (
            "no model profile: give modelPolicy.profiles here or in the template, with at least one provider and model, "
            "or policies.model_routing"
        )
        wrong.append((_definition_path(agent), message, None))
    elif spec.profile is not None and (reason := unknown_profile(profiles, spec.profile)):
        wrong.append((("spec", "profile"), reason, spec.profile))
    if wrong:
        return wrong
    refs = spec.mcp_server_refs if spec.mcp_server_refs is not None else base.mcp_server_refs
    knowledge = spec.knowledge_refs if spec.knowledge_refs is not None else base.knowledge_refs
    allowed = (spec.capabilities or base.capabilities or Capabilities()).allowed_tools
    effective = Effective(
        namespace=namespace,
        name=agent.metadata.name,
        system_prompt=spec.system_prompt if spec.system_prompt is not None else base.system_prompt or "",
        profiles=profiles,
        profile=spec.profile or "",
        declared=features,
        features=spec.features,
        tool_refs=tuple(refs or ()),
        allowed_tools=None if allowed is None else tuple(allowed),
        limits=_limits(base.limits, spec.limits),
        template=template_of(agent),
        knowledge_refs=tuple(knowledge or ()),
        routing=routing,
        select=policy.select if policy else "order",
        on_refusal=policy.on_refusal if policy else "end",
    )
    body = encode(effective)
    return Resolved(effective, body, hashlib.sha256(body).hexdigest())


def _definition_path(agent: kinds.AgentDoc) -> Path:
    return ("definition", "modelPolicy") if agent.definition is not None else ("spec", "modelPolicy")


def _profiles(policy: ModelPolicy | None) -> tuple[Profile, ...]:
    return tuple(_profile(one.name, one.model) for one in (policy.profiles if policy else ()))


def _profile(name: str, model: Model) -> Profile:
    form = model.answer_schema
    return Profile(
        name,
        model.provider,
        model.name,
        model.temperature,
        model.max_tokens,
        model.top_p,
        model.top_k,
        tuple(model.stop or ()),
        model.seed,
        model.thinking_level or "",
        model.tool_choice or "",
        model.parallel_tool_calls,
        AnswerForm(form.name, form.schema_, form.strict) if form else None,
        model.on_broken_stream or "",
    )


def _routing(policies: Policies | None) -> dict[str, Route]:
    routing = policies.model_routing if policies else None
    routes = (routing.tier_0, routing.tier_1, routing.tier_2) if routing else ()
    return {str(tier): Route(route.primary, tuple(route.fallback or ())) for tier, route in enumerate(routes) if route}


def _limits(*written: LimitsDecl | None) -> Limits:
    """The defaults, overlaid by what is written, later ones last. A turn makes one model call at least, whatever
    `max_iterations` says."""
    values: dict[str, Any] = {}
    for limits in written:
        if limits is None:
            continue
        if limits.max_iterations is not None:
            values["model_calls_max"] = max(1, limits.max_iterations)
        if limits.max_tool_calls_per_run is not None:
            values["tool_calls_max"] = limits.max_tool_calls_per_run
        for name in ("model_calls_max", "tool_calls_max", "wall_time_max_s", "tokens_max", "model_retries_max"):
            if getattr(limits, name) is not None:
                values[name] = getattr(limits, name)
    return Limits(**values)


def unknown_profile(profiles: tuple[Profile, ...], name: str) -> str:
    """Why `name` is no profile of an agent, or nothing."""
    known = [profile.name for profile in profiles]
    return "" if name in known else f"unknown profile {name[:80]!r}{nearest(name, known)}"
