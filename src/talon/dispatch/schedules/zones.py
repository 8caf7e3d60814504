"""Which version of the time zone database this process computes with."""

from __future__ import annotations

import functools
import zoneinfo
from pathlib import Path

_HEAD_BYTES = 64


@functools.cache
def tzdata_version() -> str:
    """As the database names itself (`2025b`; later ones are greater): the system's, or the one that comes with Talon where there
    is none. "" if neither tells."""
    for directory in zoneinfo.TZPATH:
        for name in ("tzdata.zi", "+VERSION"):
            try:
                with (Path(directory) / name).open("rb") as file:
                    head = file.read(_HEAD_BYTES).decode("ascii", "replace").splitlines()
            except OSError:
                continue
            if head:
                return head[0].removeprefix("# version ").strip()
        if (Path(directory) / "UTC").exists():
            return ""  # these zones are used, and do not say which they are
    try:
        import tzdata
    except ImportError:
        return ""
    return tzdata.IANA_VERSION
