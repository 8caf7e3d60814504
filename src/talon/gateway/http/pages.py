"""What every list reads of its query, as FastAPI parameters."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

#: What the setting gateway.page_max may be at most; the front of all lists refuses what is above the setting.
LIMIT_MAX = 1000
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="How many items at most.")]
Cursor = Annotated[str, Query(description="`next_cursor` of the page before; empty starts.")]
