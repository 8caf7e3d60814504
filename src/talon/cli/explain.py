"""`talon explain`: what a kind or a field of it is, without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from talon.cli.errors import WrongUse
from talon.cli.kinds import KINDS, kind_of
from talon.cli.output import as_json
from talon.cli.text import styled

if TYPE_CHECKING:
    from talon.manifest.explain import Explanation


@click.command("explain", context_settings={"max_content_width": 110})
@click.argument("path", metavar="KIND[.FIELD…]")
def command(path: str) -> None:
    """Explain a kind or one of its fields: what it is for, its type, what it may be, and what stands below it.

    It needs no server. Lists are stepped through without a number.

    \b
    Examples:
      talon explain agent
      talon explain schedule.spec.target
      talon explain template.definition.modelPolicy.profiles.model
    """
    from talon.domain.errors import Invalid
    from talon.manifest.explain import explain

    kind, _, fields = path.partition(".")
    found = kind_of(kind)
    if not found.manifest:
        known = ", ".join(kind.singular for kind in KINDS if kind.manifest)
        raise WrongUse(f"{found.plural} are not declared, so they have no fields; what is: {known}")
    try:
        print(_text(explain(f"{found.manifest}.{fields}" if fields else found.manifest)))
    except Invalid as error:
        raise WrongUse(error.detail) from None


def _text(one: Explanation) -> str:
    import msgspec

    lines = [f"{styled(one.path, 'bold')}  {one.type}{styled('  required', 'yellow') if one.required else ''}", "", one.description]
    for name, value in (("One of", one.values), ("For example", one.examples)):
        if value:
            lines += ["", f"{name}: {', '.join(as_json(item) for item in value)}"]
    if one.default is not msgspec.UNSET:
        lines += ["", f"Default: {as_json(one.default)}"]
    if one.rules:
        lines += ["", *(f"- {rule}" for rule in one.rules)]
    if one.fields:
        lines += ["", styled("Fields", "bold")]
    for field in one.fields:
        lines.append(f"  {styled(field.name, 'cyan')}  {field.type}{styled('  required', 'yellow') if field.required else ''}")
        lines += [f"      {field.description}"] if field.description else []
    return "\n".join(lines)
