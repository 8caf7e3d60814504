"""What the generated requests may not do: a watch never ends by itself, so lists are read and not watched."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook  # pyright: ignore[reportUntypedFunctionDecorator, reportUnknownMemberType]
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Take `watch` out of a request, in every phase."""
    if case.query and str(case.query.get("watch")).lower() in ("true", "1", "on", "yes", "t", "y"):
        del case.query["watch"]
