"""`talon explain`: what a kind or a field of it is, without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from talon.cli.errors import WrongUse
from talon.cli.kinds import KINDS, declared_kind
from talon.cli.output import as_json, table
from talon.cli.text import styled

if TYPE_CHECKING:
    from talon.manifest.explain import Explanation


@click.command("explain", context_settings={"max_content_width": 110})
@click.argument("path", metavar="[KIND[.FIELD…]]", required=False)
def command(path: str | None) -> None:
    """Explain a kind or one of its fields: what it is for, its type, what it may be, and what stands below it. Without KIND, which
    kinds there are.

    It needs no server. A place in a list may be left out, so a field may be asked for as an error names it.

    \b
    Examples:
      talon explain
      talon explain agent
      talon explain schedule.spec.target
      talon explain template.definition.modelPolicy.profiles.model
    """
    from talon.domain.errors import Invalid
    from talon.manifest.explain import explain

    if path is None:
        rows = [(kind.singular, ", ".join(kind.aliases), explain(kind.manifest).description) for kind in KINDS if kind.manifest]
        print(table(("KIND", "ALSO", "WHAT IT IS"), rows))
        return
    kind, _, fields = path.partition(".")
    found = declared_kind(kind, "fields")
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
