"""Documents to manifests: which kind a document is, whether it is one, and who it names. Everything wrong is collected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import ValidationError

from talon.domain.errors import FieldError
from talon.manifest import kinds
from talon.manifest.complaints import complaints, nearest, what
from talon.manifest.document import Document, Path
from talon.manifest.within import within

DEFAULT_NAMESPACE = "default"
Identity = tuple[str, str, str]  # namespace, kind, name; the namespace of a Namespace is ""
_SERVER_METADATA = ("uid", "generation", "createdAt", "updatedAt")


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that the user should know although it is no error."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A document that is a manifest. `body` is what is stored: what the user wrote, without what only Talon writes.

    `root` is where the fields of `spec` (session) or of the document begin, for error paths.
    """

    document: Document
    kind: kinds.Kind
    namespace: str
    name: str
    body: dict[str, Any]
    model: kinds.Doc
    root: Path = ()
    warnings: tuple[Warned, ...] = ()

    @property
    def identity(self) -> Identity:
        """(namespace, kind, name); a session's name is `agent/id`, for each agent has its own."""
        if isinstance(self.model, kinds.SessionDoc):
            return (self.namespace, self.kind, f"{self.model.spec.agent}/{self.name}")
        return (self.namespace, self.kind, self.name)

    @property
    def label(self) -> str:
        """`Agent acme/customer-support`."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Expected:
    """What a route expects of the one document in its body: apiVersion, kind, namespace and name may then be left out."""

    kind: kinds.Kind
    namespace: str = ""
    name: str = ""


@dataclass(slots=True)
class Reading:
    """The manifests that are well-formed in themselves, all errors of the others, and who those others would have been (so that
    nothing complains that they do not exist)."""

    manifests: list[Manifest] = field(default_factory=list[Manifest])
    errors: list[FieldError] = field(default_factory=list[FieldError])
    broken: set[Identity] = field(default_factory=set[Identity])


def read(documents: Sequence[Document], expected: Expected | None = None) -> Reading:
    """Read all documents. Never raises for what is in them."""
    reading = Reading()
    first: dict[Identity, Document] = {}
    for document in documents:
        errors = list(document.problems)
        manifest = None if _not_a_mapping(document, errors) else _manifest(document, expected, errors)
        if manifest is not None:
            errors += within(manifest.document, manifest.model, manifest.root)
            other = first.setdefault(manifest.identity, document)
            if other is not document:
                errors.append(document.error((), f"{manifest.label} is in {other.place()} already; keep one of them"))
        if manifest is not None and not errors:
            reading.manifests.append(manifest)
        elif identity := _identity(document.data):
            reading.broken.add(identity)
        reading.errors += errors
    return reading


def _not_a_mapping(document: Document, errors: list[FieldError]) -> bool:
    if isinstance(document.data, dict):
        return False
    message = f"is {what(document.data)}, not a manifest: a mapping with apiVersion, kind and metadata"
    errors.append(document.error((), message))
    return True


def _identity(data: Any) -> Identity | None:
    """Who a broken document would have been, as far as can be told."""
    if not isinstance(data, dict):
        return None
    top = cast(dict[str, Any], data)
    metadata = cast(dict[str, Any], top.get("metadata")) if isinstance(top.get("metadata"), dict) else {}
    kind, name, namespace = top.get("kind"), metadata.get("name"), metadata.get("namespace", DEFAULT_NAMESPACE)
    if not (isinstance(kind, str) and isinstance(name, str) and isinstance(namespace, str)):
        return None
    return ("" if kind == "Namespace" else namespace, kind, name)


def _manifest(document: Document, expected: Expected | None, errors: list[FieldError]) -> Manifest | None:
    data = cast(dict[str, Any], document.data)
    if expected is not None:
        data = _filled(data, expected)
    if "kind" not in data:
        if _is_bare_session(data):
            return _bare_session(document, errors)
        errors.append(document.error(("kind",), _no_kind(data)))
        return None
    kind = data["kind"]
    if not isinstance(kind, str) or kind not in kinds.DOCS:
        errors.append(document.error(("kind",), _wrong_kind(kind), kind))
        return None
    if expected is not None and kind != expected.kind:
        errors.append(document.error(("kind",), f"must be {expected.kind} on this route", kind))
        return None
    if "apiVersion" not in data:
        errors.append(document.error(("apiVersion",), f"is missing; write {kinds.API_VERSION}"))
        data = {"apiVersion": kinds.API_VERSION, **data}
    try:
        model = kinds.DOCS[kind].model_validate(data)
    except ValidationError as error:
        errors += complaints(document, kinds.DOCS[kind], error)
        return None
    return _named(document, data, model, expected, errors)


def _filled(data: dict[str, Any], expected: Expected) -> dict[str, Any]:
    """The body of a request with what its route says. A namespace may be just `{"name": …}`."""
    if expected.kind == "Namespace" and "name" in data and "metadata" not in data:
        named = {key: data[key] for key in ("name", "labels", "annotations") if key in data}
        data = {"metadata": named, **{key: value for key, value in data.items() if key not in named}}
    filled = {"apiVersion": kinds.API_VERSION, "kind": expected.kind, **data}
    metadata = filled.get("metadata", {})
    if expected.name and isinstance(metadata, dict) and "name" not in metadata:
        filled["metadata"] = {"name": expected.name, **cast(dict[str, Any], metadata)}
    return filled


def _named(
    document: Document, data: dict[str, Any], model: kinds.Doc, expected: Expected | None, errors: list[FieldError]
) -> Manifest | None:
    metadata = model.metadata
    namespace = ""
    if not isinstance(metadata, kinds.NamespaceMetadata):
        namespace = metadata.namespace or (expected.namespace if expected else "") or DEFAULT_NAMESPACE
    if expected is not None and expected.namespace and namespace != expected.namespace:
        message = f"is not the namespace of the route ({expected.namespace})"
        errors.append(document.error(("metadata", "namespace"), message, namespace))
        return None
    if expected is not None and expected.name and metadata.name != expected.name:
        errors.append(document.error(("metadata", "name"), f"is not the name in the route ({expected.name})", metadata.name))
        return None
    body = {key: value for key, value in data.items() if key != "status"}
    written = cast(dict[str, Any], body["metadata"])
    named: dict[str, Any] = {"name": metadata.name, "namespace": namespace} if namespace else {"name": metadata.name}
    body["metadata"] = {**named, **{key: value for key, value in written.items() if key not in _SERVER_METADATA}}
    root: Path = ("spec",) if model.kind == "Session" else ()
    return Manifest(document, model.kind, namespace, metadata.name, body, model, root)


def _is_bare_session(data: dict[str, Any]) -> bool:
    return "apiVersion" not in data and isinstance(data.get("agent"), str) and ("id" in data or "ns" in data)


def _bare_session(document: Document, errors: list[FieldError]) -> Manifest | None:
    try:
        bare = kinds.BareSession.model_validate(document.data)
    except ValidationError as error:
        errors += complaints(document, kinds.BareSession, error)
        return None
    namespace = bare.ns or DEFAULT_NAMESPACE
    written = cast(dict[str, Any], document.data)
    moved = ("agent", "features", "profile", "metadata", "messages")
    body: dict[str, Any] = {
        "apiVersion": kinds.API_VERSION,
        "kind": "Session",
        "metadata": {"name": bare.id, "namespace": namespace},
        "spec": {key: written[key] for key in moved if key in written},
    }
    ignored = [key for key in ("status", "stream") if key in written]
    warnings = tuple(Warned(key, f"{document.place((key,))}: describes a session and changes nothing; not read") for key in ignored)
    return Manifest(document, "Session", namespace, bare.id, body, kinds.SessionDoc.model_validate(body), (), warnings)


def _no_kind(data: dict[str, Any]) -> str:
    if isinstance(data.get("spec"), dict) and ("ns" in data or "cron" in data["spec"] or "target" in data["spec"]):
        return "is missing; this looks like a Schedule: kind not served by this version"
    if isinstance(data.get("agent"), dict) or "policies" in data:
        return "is missing; this looks like an agent with its policy (*.talon.yaml): form not served by this version"
    return f"is missing; write one of {', '.join(kinds.KINDS)}"


def _wrong_kind(kind: Any) -> str:
    if isinstance(kind, str) and kind in kinds.LATER_KINDS:
        return f"kind not served by this version: {kind}; it serves {', '.join(kinds.KINDS)}"
    if isinstance(kind, str):
        return f"unknown kind{nearest(kind, kinds.KINDS)}"
    return f"must be text, not {what(kind)}"
