"""Numbered migrations as packaged SQL, one folder per dialect; both backends read them here.

A file is `NNNN_name.sql`; its head says `-- min_program: N`: the oldest program that may use the database afterwards. A program is
known by the number of its newest migration. Migrations only run forward. A release that *expands* (new table, new column with
a default) leaves `min_program` as it was, so that older programs run on beside it; the later one that *contracts* raises it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from talon.domain.errors import Unavailable

Dialect = Literal["sqlite", "postgres"]

_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_MIN_PROGRAM = re.compile(r"^-- min_program: (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema. `sql` holds several statements, to run in one transaction."""

    number: int
    name: str
    min_program: int
    sql: str


@cache
def migrations(dialect: Dialect) -> tuple[Migration, ...]:
    """All migrations of `dialect` by number. Raises `ValueError` for a file that is misnamed, misnumbered or without its head."""
    found: list[Migration] = []
    for file in sorted(resources.files(__name__).joinpath(dialect).iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".sql"):
            continue
        sql = file.read_text(encoding="utf-8")
        name, head = _FILE.fullmatch(file.name), _MIN_PROGRAM.search(sql)
        if name is None or head is None or int(name[1]) != len(found) + 1:
            raise ValueError(
                f"migration {dialect}/{file.name} must be named {len(found) + 1:04}_name.sql and state its min_program"
            )
        found.append(Migration(int(name[1]), name[2], int(head[1]), sql))
    return tuple(found)


def program_version(dialect: Dialect) -> int:
    """The schema version that this program knows: the number of its newest migration."""
    return migrations(dialect)[-1].number


def missing(dialect: Dialect, version: int, min_program: int) -> tuple[Migration, ...]:
    """The migrations to run on a database at `version` (0: empty) whose schema asks for `min_program`.

    Raises `Unavailable("database_newer")` when it asks for a newer program than this one.
    """
    known = program_version(dialect)
    if min_program > known:
        raise Unavailable(
            "database_newer",
            f"the database's schema is at version {version} and needs a program that knows version {min_program}; "
            f"this one knows {known}: start the newer Talon, or restore a database of this version",
        )
    return tuple(m for m in migrations(dialect) if m.number > version)
