"""What can be wrong within one well-shaped document: doubles, defaults of a wrong type, contradictions, unknown places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from talon.domain.errors import FieldError
from talon.manifest import kinds
from talon.manifest.agents import PARTS, CustomSpec, Definition, Overrides
from talon.manifest.complaints import nearest
from talon.manifest.document import ERRORS_MAX, Complaint, Document, Path, shown
from talon.manifest.effective import Feature
from talon.manifest.environment import wrong_binding, wrong_knowledge, wrong_server
from talon.manifest.features import wrong_value
from talon.manifest.prompt import places
from talon.manifest.schedule import wrong_schedule


def within(document: Document, model: kinds.Doc) -> list[FieldError]:
    """All such errors of one document."""
    if isinstance(model, kinds.TemplateDoc):
        return _definition(document, ("definition",), model.definition)
    if isinstance(model, kinds.AgentDoc):
        return _agent(document, model)
    return [document.error(("spec", *path), message, value) for path, message, value in _complaints(model)] + _listed(
        document, model
    )


def _complaints(model: kinds.Doc) -> list[Complaint]:
    """What the spec of a kind says against itself. Paths are those of the spec."""
    if isinstance(model, kinds.ScheduleDoc):
        return wrong_schedule(model.spec)
    if isinstance(model, kinds.KnowledgeDoc):
        return wrong_knowledge(model.spec)
    if isinstance(model, kinds.McpServerDoc):
        return wrong_server(model.spec)
    return wrong_binding(model.spec) if isinstance(model, kinds.McpBindingDoc) else []


def _listed(document: Document, model: kinds.Doc) -> list[FieldError]:
    """What stands in a list twice."""
    if isinstance(model, kinds.KnowledgeDoc):
        return _doubles(document, ("spec", "documents"), "name", [one.name for one in model.spec.documents])
    if isinstance(model, kinds.McpBindingDoc):
        agents = _doubles(document, ("spec", "agents"), "", model.spec.agents or ())
        return agents + _doubles(document, ("spec", "allowedTools"), "", model.spec.allowed_tools or ())
    if isinstance(model, kinds.McpServerDoc) and model.spec.tools is not None:
        allow = _doubles(document, ("spec", "tools", "allow"), "", model.spec.tools.allow or ())
        return allow + _doubles(document, ("spec", "tools", "deny"), "", model.spec.tools.deny or ())
    return []


def declared(spec: CustomSpec) -> tuple[Feature, ...]:
    """The features of a definition, in its own words."""
    return tuple(
        Feature(one.name, one.type, one.required, one.default, tuple(one.values or ()), one.description) for one in spec.features
    )


def _agent(document: Document, model: kinds.AgentDoc) -> list[FieldError]:
    spec, errors = model.spec, list[FieldError]()
    sources = [
        (("spec", "templateRef"), spec.template_ref),
        (("spec", "definition"), spec.definition),
        (("definition",), model.definition),
    ]
    given = [path for path, value in sources if value is not None]
    if len(given) > 1:
        names = " and ".join(".".join(path) for path in given)
        errors.append(document.error(given[-1], f"an agent has a template or a definition of its own; keep one of {names}"))
    errors += _parts(document, ("spec",), spec)
    for path, definition in ((("spec", "definition"), spec.definition), (("definition",), model.definition)):
        if definition is not None:
            errors += _definition(document, path, definition)
    return errors


def _definition(document: Document, path: Path, definition: Definition) -> list[FieldError]:
    inner = definition.custom_spec or CustomSpec()
    errors = _parts(document, path, definition) + _parts(document, (*path, "customSpec"), inner)
    for name, written in PARTS.items():
        if getattr(definition, name) is not None and getattr(inner, name) is not None:
            errors.append(document.error((*path, written), "is in customSpec already; keep one of them"))
    features = declared(inner)
    errors += _features(document, (*path, "customSpec", "features"), features)
    for place, prompt in ((path, definition.system_prompt), ((*path, "customSpec"), inner.system_prompt)):
        unknown = unknown_places((*place, "systemPrompt"), prompt or "", features)
        errors += [document.error(*complaint) for complaint in unknown]
    return errors


def _features(document: Document, path: Path, features: Sequence[Feature]) -> list[FieldError]:
    errors = _doubles(document, path, "name", [one.name for one in features])
    for index, feature in enumerate(features):
        here = (*path, index)
        if feature.type == "enum" and not feature.values:
            errors.append(document.error((*here, "values"), "is missing: an enum lists its values"))
        elif feature.type != "enum" and feature.values:
            errors.append(document.error((*here, "values"), f"only an enum has values; {feature.name!r} is of type {feature.type}"))
        elif feature.default is not None and (reason := wrong_value(feature, feature.default)):
            errors.append(document.error((*here, "default"), reason, feature.default))
        errors += _doubles(document, (*here, "values"), "", feature.values)
    return errors


def unknown_places(path: Path, prompt: str, features: Iterable[Feature], also: str = "") -> list[Complaint]:
    """A complaint for each place of `prompt` that names no feature, nor `also`."""
    names = dict.fromkeys([*(feature.name for feature in features), *filter(None, [also])])
    unknown = [place for place in places(prompt) if place not in names][:ERRORS_MAX]
    return [
        (path, f"{_shown_place(place)} names no declared feature{nearest(place, names)} ({_LITERAL})", place) for place in unknown
    ]


_LITERAL = "\\{{ stands for literal braces"


def _shown_place(place: str) -> str:
    return f"place {{{{ {shown(place)} }}}}"


def _parts(document: Document, path: Path, parts: Overrides) -> list[FieldError]:
    errors: list[FieldError] = []
    if parts.model_policy is not None:
        at = (*path, "modelPolicy", "profiles")
        errors += _doubles(document, at, "name", [profile.name for profile in parts.model_policy.profiles])
    errors += _doubles(document, (*path, "mcpServerRefs"), "", parts.mcp_server_refs or ())
    errors += _doubles(document, (*path, "knowledgeRefs"), "", parts.knowledge_refs or ())
    if parts.capabilities is not None:
        errors += _doubles(document, (*path, "capabilities", "allowed_tools"), "", parts.capabilities.allowed_tools or ())
    limits = parts.limits
    if limits is not None:
        for name, other in (("model_calls_max", "max_iterations"), ("tool_calls_max", "max_tool_calls_per_run")):
            if getattr(limits, name) is not None and getattr(limits, other) is not None:
                errors.append(document.error((*path, "limits", other), f"is another spelling of {name}; keep one of them"))
    return errors


def _doubles(document: Document, path: Path, key: str, names: Sequence[str]) -> list[FieldError]:
    """An error for each item of the list at `path` whose name an earlier item has."""
    seen: set[str] = set()
    errors: list[FieldError] = []
    for index, name in enumerate(names):
        if name in seen:
            where = (*path, index, key) if key else (*path, index)
            errors.append(document.error(where, "is in the list already; keep one of them", name))
        seen.add(name)
    return errors
