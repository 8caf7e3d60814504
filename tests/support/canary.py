"""A planted value: what it looks like in every usual form, and where it may have been left."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus


def forms(value: str) -> set[bytes]:
    """`value` raw, in JSON, in Python's and URLs' spelling, in hex, and in base64 at each of its three offsets."""
    data = value.encode()
    found = {data, json.dumps(value)[1:-1].encode(), repr(value)[1:-1].encode(), repr(data)[2:-1].encode()}
    found |= {
        data.hex().encode(),
        data.hex().upper().encode(),
        quote(value, safe="").encode(),
        quote(value).encode(),
        quote_plus(value).encode(),
    }
    for offset in range(3):
        cut = len(data) - (len(data) + offset) % 3
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(b"\0" * offset + data[:cut])[offset + 1 if offset else 0 :])
    return found | {value.encode("utf-16-le")}


def leaks(haystack: bytes, *values: str) -> list[str]:
    """What of `values` stands in `haystack`: the form and what is around it."""
    return [
        f"{form!r} in {haystack[max(0, at - 60) : at + len(form) + 20]!r}"
        for value in values
        for form in forms(value)
        if (at := haystack.find(form)) >= 0
    ]


def files(*directories: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below `directories` with its bytes; one that goes away meanwhile is left out."""
    for directory in directories:
        for path in sorted(directory.rglob("*")):
            if path.is_file() and not path.is_symlink():
                with contextlib.suppress(FileNotFoundError):
                    yield path, path.read_bytes()
