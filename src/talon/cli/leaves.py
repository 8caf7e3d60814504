"""The table of all settings, derived from the model: path, environment variable, flag, what fits. One rule, no exceptions list.

A map's entries are written with `*`: `providers.*.base_url`, `TALON_PROVIDERS_NAME_BASE_URL`, `--set providers.NAME.base_url=…`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from talon.cli.settings import Settings

#: The short flags that scripts may rely on, beside the derived ones.
SHORT_FLAGS = {
    "gateway.host": "--host",
    "gateway.port": "--port",
    "gateway.grpc_port": "--grpc-port",
    "worker.name": "--name",
    "control_plane.database.url": "--database-url",
}
#: Variables that other programs set too; the derived name wins over them.
COMMON_ENV = {"control_plane.database.url": "DATABASE_URL"}


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting. `type` is its annotation without None."""

    path: str
    type: Any
    info: FieldInfo

    @property
    def env(self) -> str:
        """`TALON_` and the path in capitals; of a map's entry with NAME in place of the name."""
        return "TALON_" + self.path.replace("*", "NAME").replace(".", "_").upper()

    @property
    def flag(self) -> str:
        """The path with `-`; empty for a map's entry, which is set by `--set`."""
        return "" if "*" in self.path else "--" + self.path.replace(".", "-").replace("_", "-")

    @property
    def extra(self) -> dict[str, Any]:
        """The model's own remarks: inactive, inactive_values, expects."""
        extra = self.info.json_schema_extra
        return cast(dict[str, Any], extra) if isinstance(extra, dict) else {}

    @property
    def is_list(self) -> bool:
        return get_origin(self.type) is tuple

    @property
    def is_secret(self) -> bool:
        return self.type is SecretStr

    @property
    def is_path(self) -> bool:
        return self.type is Path or (self.is_list and get_args(self.type)[0] is Path)

    @property
    def choices(self) -> tuple[str, ...]:
        """The only values that it can have; empty where there is no such list."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    @property
    def is_number(self) -> bool:
        return self.type in (int, float)

    def from_text(self, text: str) -> Any:
        """What an environment variable or a flag gives to the model: a list is separated by commas, the rest is parsed there."""
        return [part for raw in text.split(",") if (part := raw.strip())] if self.is_list else text

    def expected(self) -> str:
        """What fits, in words."""
        if "expects" in self.extra:
            return str(self.extra["expects"])
        if self.choices:
            return "one of " + " | ".join(self.choices)
        if self.type is bool:
            return "true or false"
        if self.is_number:
            return ("a whole number" if self.type is int else "a number") + self._bounds()
        return "a list of texts" if self.is_list else "a text"

    def _bounds(self) -> str:
        bounds = {name: getattr(m, name) for m in self.info.metadata for name in ("ge", "gt", "le", "lt") if hasattr(m, name)}
        low = f"{bounds['ge']:g}" if "ge" in bounds else f"above {bounds['gt']:g}" if "gt" in bounds else ""
        high = f"{bounds['le']}" if "le" in bounds else ""
        if low and high:
            return f" {low} to {high}" if low.startswith("above") else f" from {low} to {high}"
        return f", at least {low}" if low else ""

    def default(self) -> str:
        """The default as text for help pages."""
        if self.info.default_factory is not None or self.info.default is None or self.info.default in ((), ""):
            return ""
        if self.type is bool:
            return "true" if self.info.default else "false"
        return ", ".join(map(str, self.info.default)) if self.is_list else str(self.info.default)


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        return next(arg for arg in get_args(annotation) if arg is not type(None))
    return annotation


def _walk(model: type[BaseModel], prefix: str) -> Iterator[Leaf]:
    for name, info in model.model_fields.items():
        kind = _without_none(info.annotation)
        if get_origin(kind) is dict:
            yield from _walk(get_args(kind)[1], f"{prefix}{name}.*.")
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _walk(kind, f"{prefix}{name}.")
        else:
            yield Leaf(prefix + name, kind, info)


@cache
def leaves() -> dict[str, Leaf]:
    """Every setting by its path, in the model's order."""
    return {leaf.path: leaf for leaf in _walk(Settings, "")}


def find(path: str) -> Leaf | None:
    """The setting that a concrete path names (`providers.acme.base_url`), or None."""
    table = leaves()
    if path in table:
        return table[path]
    parts = path.split(".")
    return table.get(".".join((parts[0], "*", *parts[2:]))) if len(parts) > 2 else None


def from_env_name(name: str) -> tuple[str, Leaf] | None:
    """The (concrete path, setting) that an environment variable names, or None."""
    for leaf in leaves().values():
        if leaf.env == name or COMMON_ENV.get(leaf.path) == name:
            return leaf.path, leaf
    # Longest suffix first: a field's name may end like another one's.
    for leaf in sorted((leaf for leaf in leaves().values() if "*" in leaf.path), key=lambda leaf: -len(leaf.env)):
        before, after = leaf.env.split("NAME")
        middle = name.removeprefix(before).removesuffix(after)
        if (
            name.startswith(before)
            and name.endswith(after)
            and middle.strip("_")
            and len(middle) == len(name) - len(before + after)
        ):
            return leaf.path.replace("*", middle.lower().replace("_", "-")), leaf
    return None


def group_of(path: str) -> str:
    """The first part of a path; empty for a setting at the top."""
    return path.partition(".")[0] if "." in path else ""


def group_title(group: str) -> str:
    """What a group is about: the first line of its model's docstring."""
    if not group:
        return "General"
    annotation = cast(Any, Settings.model_fields[group].annotation)
    model = annotation if isinstance(annotation, type) else get_args(annotation)[1]
    return f"{group}: {(model.__doc__ or '').strip().splitlines()[0].rstrip('.')}"
