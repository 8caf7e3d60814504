"""What a manifest refers to, and where in it: the base of users, of conditions, of the graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from talon.domain.resources import Ref
from talon.manifest import kinds
from talon.manifest.agents import Overrides
from talon.manifest.document import Path
from talon.manifest.environment import McpServerSpec
from talon.manifest.fields import SecretRef

#: Where the parts of an agent's definition may stand in its manifest.
_ABOVE: tuple[tuple[str, ...], ...] = (
    ("spec",),
    ("definition",),
    ("definition", "customSpec"),
    ("spec", "definition"),
    ("spec", "definition", "customSpec"),
)


def refs(model: kinds.Doc) -> tuple[Ref, ...]:
    """What a manifest refers to, each once, sorted. A kind refers only to kinds before it in `KINDS`, so no cycle can be made."""
    return tuple(sorted({ref for _, ref in places(model)}))


def places(model: kinds.Doc) -> Iterator[tuple[Path, Ref]]:
    """Each reference with the field that it stands in. A session's agent is none: sessions are no resources."""
    if isinstance(model, kinds.TemplateDoc):
        yield from _definition(("definition",), model.definition)
    elif isinstance(model, kinds.AgentDoc):
        if model.spec.template_ref is not None:
            yield ("spec", "templateRef"), Ref("AgentTemplate", model.spec.template_ref.name)
        yield from _parts(("spec",), model.spec)
        yield from _definition(("definition",), model.definition)
        yield from _definition(("spec", "definition"), model.spec.definition)
    elif isinstance(model, kinds.ScheduleDoc):
        yield ("spec", "target", "agent"), Ref("Agent", model.spec.target.agent)
    elif isinstance(model, kinds.McpServerDoc):
        yield from _values(model.spec)
    elif isinstance(model, kinds.McpBindingDoc):
        spec = model.spec
        yield ("spec", "server"), Ref("McpServer", spec.server)
        yield from ((("spec", "agents", at), Ref("Agent", name)) for at, name in enumerate(spec.agents or ()))
        if spec.auth is not None and spec.auth.secret_ref is not None:
            yield ("spec", "auth", "secretRef"), Ref("Secret", spec.auth.secret_ref)


def stands(body: dict[str, Any], field: str) -> Path:
    """Where an agent's manifest has a part of its definition (`knowledgeRefs`, `capabilities.allowed_tools`): where it gives it, or
    else where it names the template that does."""
    inside = tuple(field.split("."))
    for above in _ABOVE:
        at: Any = body
        for name in (*above, *inside):
            at = cast(dict[str, Any], at).get(name) if isinstance(at, dict) else None
        if at is not None:
            return (*above, *inside)
    return ("spec", "templateRef")


def _definition(path: Path, definition: Any) -> Iterator[tuple[Path, Ref]]:
    if definition is not None:
        yield from _parts(path, definition)
        if definition.custom_spec is not None:
            yield from _parts((*path, "customSpec"), definition.custom_spec)


def _parts(path: Path, parts: Overrides) -> Iterator[tuple[Path, Ref]]:
    for field, kind, names in (
        ("mcpServerRefs", "McpServer", parts.mcp_server_refs),
        ("knowledgeRefs", "Knowledge", parts.knowledge_refs),
    ):
        yield from (((*path, field, at), Ref(kind, name)) for at, name in enumerate(names or ()))


def _values(spec: McpServerSpec) -> Iterator[tuple[Path, Ref]]:
    for field, values in (("env", spec.env), ("headers", spec.headers)):
        for name, value in (values or {}).items():
            if isinstance(value, SecretRef):
                yield ("spec", field, name, "secretRef"), Ref("Secret", value.secret_ref)
