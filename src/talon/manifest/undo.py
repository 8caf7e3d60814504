"""The way back: an agent as it was at an earlier revision, as a manifest that is applied like any other."""

from __future__ import annotations

from typing import Any

import msgspec

from talon.manifest.document import Document
from talon.manifest.effective import Effective
from talon.manifest.read import Reading, read
from talon.manifest.views import shown_definition

ROLLED_BACK_TO = "talon.dev/rolled-back-to"


def restored(body: bytes) -> Reading:
    """The manifest that the agent had at a revision. It may resolve to something else by now: its template may have changed."""
    return read([Document(1, msgspec.json.decode(body), alone=True)])


def written_out(body: bytes, effective: Effective, revision: int) -> Reading:
    """The definition of a revision as the agent's own, without a template. The annotation `talon.dev/rolled-back-to` says which."""
    data: dict[str, Any] = msgspec.json.decode(body)
    metadata: dict[str, Any] = data["metadata"]
    annotations = {**metadata.get("annotations", {}), ROLLED_BACK_TO: str(revision)}
    spec: dict[str, Any] = {"features": effective.features} if effective.features else {}
    if effective.profile:
        spec["profile"] = effective.profile
    manifest = {
        "apiVersion": data["apiVersion"],
        "kind": data["kind"],
        "metadata": {**metadata, "annotations": annotations},
        "spec": spec,
        "definition": shown_definition(effective),
    }
    return read([Document(1, manifest, alone=True)])
