"""Who a resource is: the part of the envelope that all kinds share, and what Talon writes into it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from talon.manifest.fields import Annotations, Given, Labels, Name, NamespaceName, Part

API_VERSION = "talon.dev/v1alpha1"
ApiVersion = Literal["talon.dev/v1alpha1"]


class Stamps(Part):
    """What Talon writes into a resource's metadata. Its own output has them, so they may be written: `uid` must then be the stored
    one's, the others are never acted on."""

    uid: Given[str] = Field(default=None, description="Talon's: the resource's own id. If written, it must be the stored one's.")
    generation: Given[int] = Field(default=None, description="Talon's: grows with every change of the manifest. Never acted on.")
    resource_version: Given[str] = Field(
        default=None,
        alias="resourceVersion",
        description="Talon's: grows with every change of the resource; watches go on from it. Never acted on.",
    )
    created_at: Given[str] = Field(default=None, alias="createdAt", description="Talon's: RFC 3339. Never acted on.")
    updated_at: Given[str] = Field(default=None, alias="updatedAt", description="Talon's: RFC 3339. Never acted on.")
    deleting_at: Given[str] = Field(
        default=None, alias="deletingAt", description="Talon's: since when it is being deleted. Never acted on."
    )


#: As they are written.
STAMPS = tuple(field.alias or name for name, field in Stamps.model_fields.items())
_LABELS = "For selectors: `?label_selector=app=x`, `apply --prune -l app=x`."
_ANNOTATIONS = "Notes of people and programs; Talon finds nothing by them."


class Metadata(Stamps):
    """Who a resource is, and what its people note on it."""

    name: Name = Field(description="Unique among the resources of its kind in its namespace; at most 63 of a-z, 0-9 and -.")
    namespace: Given[NamespaceName] = Field(default=None, description="Where it lives (`acme`, `acme:eu`); absent: `default`.")
    labels: Given[Labels] = Field(default=None, description=_LABELS)
    annotations: Given[Annotations] = Field(default=None, description=_ANNOTATIONS)


class NamespaceMetadata(Stamps):
    """A namespace is in none; its name may have parts (`acme:eu`)."""

    name: NamespaceName = Field(
        description="Names joined by `:`; `acme:eu` lies in `acme` and sees its templates, servers and knowledge."
    )
    labels: Given[Labels] = Field(default=None, description=_LABELS)
    annotations: Given[Annotations] = Field(default=None, description=_ANNOTATIONS)


class SessionMetadata(Stamps):
    """Who a session is; what its people note on it is `spec.metadata`."""

    name: Name = Field(description="Unique among the sessions of its agent.")
    namespace: Given[NamespaceName] = Field(default=None, description="Where its agent lives; absent: `default`.")


class ConditionTold(Part):
    """One statement about a resource."""

    type: str = Field(description="What it is about: `ReferencesResolved`, `Ready` (agents) or `Active` (the others).")
    status: str = Field(description="`True`, `False`, or `Unknown` while no worker is there to tell.")
    reason: Given[str] = Field(default=None, description="Why, in one word for programs.")
    message: Given[str] = Field(default=None, description="Why, in words; empty where all is well.")


class Status(Part):
    """What Talon says about a resource. Read so that its own output can be applied; never acted on."""

    phase: Given[str] = Field(default=None, description="`Active`, or `Terminating` while it is being deleted.")
    observed_generation: Given[int] = Field(
        default=None, alias="observedGeneration", description="The generation that the conditions are about."
    )
    conditions: Given[list[ConditionTold]] = Field(default=None, description="What is true of it now.")
    revision: Given[int] = Field(default=None, description="The newest revision of an agent.")
    template: Given[str] = Field(default=None, description="The template that an agent is made from.")
    schedule: Given[dict[str, Any]] = Field(default=None, description="Where a schedule stands: its next occurrence, what failed.")
