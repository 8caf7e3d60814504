"""Documents to manifests: which kind a document is, whether it is one, and who it names. Everything wrong is collected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from pydantic import ValidationError

from talon.domain.errors import FieldError
from talon.domain.resources import Identity
from talon.manifest import kinds
from talon.manifest.complaints import complaints, nearest, what
from talon.manifest.document import ERRORS_MAX, Document, Path, rest
from talon.manifest.environment import wrong_secret
from talon.manifest.metadata import API_VERSION, STAMPS, NamespaceMetadata, SessionMetadata
from talon.manifest.within import within

DEFAULT_NAMESPACE = "default"
#: So many errors are told at once.
ALL_ERRORS_MAX: Final = 1000
_STAMPS = frozenset(STAMPS)


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that the user should know although it is no error."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A document that is a manifest. `body` is what is stored: what the user wrote, without what only Talon writes and without a
    Secret's value, which is `secret` (None: none given).

    `root` is where the fields of `spec` stand (a session without an envelope has them at its top), for error paths.
    """

    document: Document = field(repr=False)
    kind: kinds.Kind
    namespace: str
    name: str
    body: dict[str, Any]
    model: kinds.Doc
    root: Path = ("spec",)
    warnings: tuple[Warned, ...] = ()
    secret: str | None = field(default=None, repr=False)

    @property
    def identity(self) -> Identity:
        """(namespace, kind, name); a session's name is `agent/id`, for each agent has its own."""
        if isinstance(self.model, kinds.SessionDoc):
            return (self.namespace, self.kind, f"{self.model.spec.agent}/{self.name}")
        return (self.namespace, self.kind, self.name)

    @property
    def labels(self) -> dict[str, str]:
        """For selectors; a session has none."""
        metadata = self.model.metadata
        return {} if isinstance(metadata, SessionMetadata) else metadata.labels or {}

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
    """Read all documents; those after `ALL_ERRORS_MAX` errors are not looked at. Never raises for what is in them."""
    reading = Reading()
    first: dict[Identity, Document] = {}
    for one in documents:
        document = one if expected is None else one.by_itself()
        if len(reading.errors) >= ALL_ERRORS_MAX:
            reading.errors.append(
                FieldError("", f"{document.place()} and those after it: not looked at, there are too many errors")
            )
            break
        errors = list(document.problems)
        manifest = None if _not_a_mapping(document, errors) else _manifest(document, expected, errors)
        if manifest is not None:
            found = within(manifest.document, manifest.model)
            errors += found[:ERRORS_MAX] + rest(document, len(found) - ERRORS_MAX)
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
        if _is_bare_schedule(data):
            return _bare_schedule(document, errors)
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
        errors.append(document.error(("apiVersion",), f"is missing; write {API_VERSION}"))
        data = {"apiVersion": API_VERSION, **data}
    try:
        model = kinds.DOCS[kind].model_validate(data)
    except ValidationError as error:
        errors += complaints(document, kinds.DOCS[kind], error)
        return None
    return _named(document, data, model, expected, errors)


def _filled(data: dict[str, Any], expected: Expected) -> dict[str, Any]:
    """The body of a request with what its route says. Instead of `metadata` the body may hold `name`, `ns`, `labels` and
    `annotations`: a namespace is just `{"name": …}`, a schedule `{"name": …, "spec": …}`."""
    if "name" in data and "metadata" not in data:
        moved = {key: key for key in ("name", "labels", "annotations")} | (
            {} if expected.kind == "Namespace" else {"ns": "namespace"}
        )
        named = {written: data[key] for key, written in moved.items() if key in data}
        data = {"metadata": named, **{key: value for key, value in data.items() if key not in moved}}
    filled = {"apiVersion": API_VERSION, "kind": expected.kind, **data}
    metadata = filled.get("metadata", {})
    if expected.name and isinstance(metadata, dict) and "name" not in metadata:
        filled["metadata"] = {"name": expected.name, **cast(dict[str, Any], metadata)}
    return filled


def _named(
    document: Document, data: dict[str, Any], model: kinds.Doc, expected: Expected | None, errors: list[FieldError]
) -> Manifest | None:
    metadata = model.metadata
    namespace = ""
    if not isinstance(metadata, NamespaceMetadata):
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
    body["metadata"] = {**named, **{key: value for key, value in written.items() if key not in _STAMPS}}
    if isinstance(model, kinds.SecretDoc):
        return _secret(document, namespace, body, model, errors)
    return Manifest(document, model.kind, namespace, metadata.name, body, model)


def _secret(
    document: Document, namespace: str, body: dict[str, Any], model: kinds.SecretDoc, errors: list[FieldError]
) -> Manifest | None:
    """A secret without its value, which goes another way."""
    value, kept = model.spec.value, model.spec.model_copy(update={"value": None})
    if reason := wrong_secret(value or ""):
        errors.append(document.error(("spec", "value"), reason))
        return None
    spec = {key: one for key, one in body.pop("spec", {}).items() if key != "value"}
    body |= {"spec": spec} if spec else {}
    model = model.model_copy(update={"spec": kept})
    return Manifest(document, "Secret", namespace, model.metadata.name, body, model, secret=value)


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
    moved = ("agent", "features", "profile", "config", "metadata", "messages")
    body: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "Session",
        "metadata": {"name": bare.id, "namespace": namespace},
        "spec": {key: written[key] for key in moved if key in written},
    }
    ignored = [key for key in ("status", "stream") if key in written]
    warnings = tuple(Warned(key, document.said((key,), "describes a session and changes nothing; not read")) for key in ignored)
    return Manifest(document, "Session", namespace, bare.id, body, kinds.SessionDoc.model_validate(body), (), warnings)


def _is_bare_schedule(data: dict[str, Any]) -> bool:
    spec = data.get("spec")
    shaped = isinstance(spec, dict) and (
        "ns" in data or not {"cron", "target", "inputMessage"}.isdisjoint(cast(dict[str, Any], spec))
    )
    return shaped and "name" in data and not {"apiVersion", "metadata"} & data.keys()


def _bare_schedule(document: Document, errors: list[FieldError]) -> Manifest | None:
    try:
        bare = kinds.BareSchedule.model_validate(document.data)
    except ValidationError as error:
        errors += complaints(document, kinds.BareSchedule, error)
        return None
    body: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "Schedule",
        "metadata": {"name": bare.name, "namespace": bare.ns or DEFAULT_NAMESPACE},
        "spec": cast(dict[str, Any], document.data)["spec"],
    }
    model = kinds.ScheduleDoc.model_validate(body)
    return Manifest(document, "Schedule", bare.ns or DEFAULT_NAMESPACE, bare.name, body, model)


def _no_kind(data: dict[str, Any]) -> str:
    if isinstance(data.get("agent"), dict) or "policies" in data:
        return "is missing; this looks like an agent with its policy (*.talon.yaml): form not served by this version"
    return f"is missing; write one of {', '.join(kinds.KINDS)}"


def _wrong_kind(kind: Any) -> str:
    if isinstance(kind, str):
        return f"unknown kind{nearest(kind, kinds.KINDS)}"
    return f"must be text, not {what(kind)}"
