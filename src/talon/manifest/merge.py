"""JSON merge patch (RFC 7396): what a change says of a manifest, put over it."""

from __future__ import annotations

from typing import Any, cast


def merge_patch(target: Any, patch: Any) -> Any:
    """`target` with `patch` put over it: mappings are merged, `null` takes a field away, anything else replaces what was there.

    Neither is changed. A patch that is no mapping replaces the whole.
    """
    if not isinstance(patch, dict):
        return patch
    merged: dict[str, Any] = dict(cast(dict[str, Any], target)) if isinstance(target, dict) else {}
    for key, value in cast(dict[str, Any], patch).items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged
