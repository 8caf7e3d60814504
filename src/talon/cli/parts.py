"""Manifests in as many requests as the server's limits of one ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, cast

from talon.manifest.document import walk
from talon.manifest.kinds import KINDS
from talon.manifest.parse import BYTES_MAX, DOCUMENTS_MAX, VALUES_MAX

_NUMBER = re.compile(r"\Adocument (\d+)")
_ORDER: dict[str, int] = {kind: number for number, kind in enumerate(KINDS)}


def in_parts(bodies: Sequence[Any]) -> list[list[int]]:
    """The places of `bodies` by the requests that they go in: one if they fit into one, as they are. Otherwise several, and nothing
    goes before what it refers to."""
    places = list(range(len(bodies)))
    whole = _filled(bodies, places)
    return whole if len(whole) == 1 else _filled(bodies, sorted(places, key=lambda place: _order(bodies[place])))


def _filled(bodies: Sequence[Any], places: Sequence[int]) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    size = values = 0
    for place in places:
        bytes_more, values_more = len(json.dumps(bodies[place])) + 2, sum(1 for _ in walk(bodies[place]))
        fits = len(parts[-1]) < DOCUMENTS_MAX and size + bytes_more < BYTES_MAX and values + values_more < VALUES_MAX
        if parts[-1] and not fits:
            parts.append([])
            size = values = 0
        parts[-1].append(place)
        size, values = size + bytes_more, values + values_more
    return parts


def _order(body: Any) -> int:
    """What is no manifest goes first: it is refused before anything is applied."""
    if not isinstance(body, dict):
        return -1
    data = cast(dict[str, Any], body)
    return _ORDER.get(str(data.get("kind") or ("Session" if "agent" in data else "Schedule")), -1)


def of_all(part: Sequence[int], answer: dict[str, Any]) -> dict[str, Any]:
    """The answer to one part, with the numbers that its documents have among all."""

    def renumbered(message: str) -> str:
        return _NUMBER.sub(lambda found: f"document {part[int(found[1]) - 1] + 1}", message)

    items: list[dict[str, Any]] = [
        {**item, "document": part[item["document"] - 1] + 1 if item["document"] else 0} for item in answer["items"]
    ]
    warnings = [{**warning, "message": renumbered(warning["message"])} for warning in answer.get("warnings", [])]
    return {**answer, "items": items, "warnings": warnings}
