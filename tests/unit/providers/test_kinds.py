"""The table of kinds beside its guide: what people read about each vendor is what its dialect says."""

from __future__ import annotations

import re
from pathlib import Path

from talon.providers.kinds import KINDS
from talon.providers.registry import ProviderConfig, dialect_of

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "providers.md"


def rows(heading: str) -> dict[str, list[str]]:
    """The first table below `heading`: the cells by the kind in the first one."""
    table = GUIDE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("| `") and "`kind`" not in line
    ]
    return {cells[0].strip("`"): cells[1:] for cells in found}


def test_the_guide_names_every_kind_with_its_address_and_its_variables() -> None:
    table = rows("Kinds")
    assert table.keys() == {*KINDS, "scripted"}
    for name, kind in KINDS.items():
        _, address, variables = table[name]
        assert address == f"`{kind.base_url.replace('{region}', 'REGION')}`", name
        known = {variable for variable in (kind.key_env, kind.url_env, *kind.region_env) if variable}
        assert set(re.findall(r"[A-Z_]{6,}", variables)) == known, name
    assert rows("What each vendor can do").keys() == KINDS.keys()


def test_the_guide_says_what_is_left_out() -> None:
    table = rows("What is left out")
    assert table.keys() == KINDS.keys()
    for name in KINDS:
        dialect = dialect_of(ProviderConfig(name, region="eu-central-1"))
        assert set(re.findall(r"`(\w+)`", table[name][0])) == dialect.leaves_out, name
