"""What workers say they can serve: the published catalogue from which conditions are read and references are checked."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from talon.domain.models import ModelInfo


class Catalogue(msgspec.Struct, frozen=True):
    """Toolset name -> the names of its tools, the names of the configured providers, and what is known of their models.

    The toolset `builtin` holds the built-in tools, which `capabilities.allowed_tools` may name without a reference.
    """

    toolsets: dict[str, tuple[str, ...]] = {}
    providers: tuple[str, ...] = ()
    models: tuple[ModelInfo, ...] = ()


BUILTIN = "builtin"
_DECODER = msgspec.json.Decoder(Catalogue)


def encode(catalogue: Catalogue) -> bytes:
    """As the bytes that a worker registers with."""
    return msgspec.json.encode(catalogue, order="deterministic")


def decode(data: bytes) -> Catalogue:
    """Back from `encode`; empty bytes are an empty catalogue. Raises `msgspec.DecodeError` on anything else."""
    return _DECODER.decode(data) if data else Catalogue()


def merge(catalogues: Iterable[bytes]) -> Catalogue | None:
    """What the live workers serve together; None if there is no worker, so nobody knows.

    A worker whose catalogue cannot be read (a newer program) counts as serving nothing.
    """
    toolsets: dict[str, set[str]] = {}
    providers: set[str] = set()
    models: dict[str, ModelInfo] = {}
    alive = False
    for data in catalogues:
        alive = True
        try:
            one = decode(data)
        except msgspec.DecodeError:
            continue
        for name, tools in one.toolsets.items():
            toolsets.setdefault(name, set()).update(tools)
        providers.update(one.providers)
        for model in one.models:
            models.setdefault(model.id, model)
    if not alive:
        return None
    return Catalogue(
        {name: tuple(sorted(tools)) for name, tools in sorted(toolsets.items())},
        tuple(sorted(providers)),
        tuple(model for _, model in sorted(models.items())),
    )
