"""The id of a request: in its answer, in the log, and in the access log."""

from __future__ import annotations

import re

from talon.domain.ids import Ids

_FORM = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id_of(given: str, ids: Ids) -> str:
    """The caller's own (`x-request-id`), if it is fit to be logged; else a fresh one."""
    return given if _FORM.fullmatch(given) else ids.uuid7()
