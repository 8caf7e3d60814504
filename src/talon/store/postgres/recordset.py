"""Statements made of parts, and rows as one parameter of a statement: a JSON array, which the statement reads as a table.

An array for each column would do the same and cost a process about twice as much: the driver looks at every element of every array,
one by one. The server pays about the same for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode


class Recordset:
    """The columns of such a table, each "name type"."""

    def __init__(self, *columns: str) -> None:
        typed = [(name, kind) for name, _, kind in (column.partition(" ") for column in columns)]
        # Columns that are null are left out of the text; bytes are base64 in it.
        self._row = msgspec.defstruct("Row", [(name, Any, None) for name, _ in typed], omit_defaults=True)
        self._types = ", ".join(f'"{name}" {"text" if kind == "bytea" else kind}' for name, kind in typed)
        self._columns = ", ".join(
            f"""decode(r."{name}", 'base64') AS "{name}\"""" if kind == "bytea" else f'r."{name}"' for name, kind in typed
        )

    def sql(self, parameter: int) -> str:
        """The table in parentheses, of parameter `$parameter`; an alias has to follow. Rows come in the order of the argument."""
        return f"(SELECT {self._columns} FROM json_to_recordset(${parameter}::json) AS r({self._types}))"

    def argument(self, rows: Iterable[Sequence[object]]) -> str:
        """The parameter's value; each row has all columns, None for null."""
        row = self._row
        return _encode([row(*values) for values in rows]).decode()


class Part:
    """A part of a statement that is there when it is needed: what a statement could do costs time even where it does nothing.

    `{rows}` in its text stands for the table `n` of its own rows, of `columns` ("name type", …), if it has any.
    """

    def __init__(self, columns: Sequence[str], text: str) -> None:
        self._text, self._rows = text, Recordset(*columns)
        self.argument = self._rows.argument
        self.parameters = 1 if columns else 0

    def sql(self, parameter: int) -> str:
        """Its text, with its rows in that parameter."""
        return self._text.replace("{rows}", f"{self._rows.sql(parameter)} AS n") if self.parameters else self._text
