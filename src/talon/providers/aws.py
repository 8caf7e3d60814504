"""What AWS wants of every call: credentials and a signature, both by `botocore` (the extra `bedrock`), imported when first needed.

Credentials are one text, `ACCESS_KEY_ID:SECRET_ACCESS_KEY` or with `:SESSION_TOKEN` after it: none of the three can hold a colon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from talon.providers.faults import safe_text
from talon.providers.protocol import Key, ProviderError


def signed(credentials: str, service: str, region: str, url: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
    """`headers` and those that sign a POST of `body` to `url` (Signature Version 4), now. `url` as it goes over the wire.

    Raises `ProviderError("unresolved")` without botocore, and for credentials that are none.
    """
    parts = credentials.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise ProviderError("unresolved", "AWS credentials are written ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]")
    request = _module("awsrequest").AWSRequest("POST", url, dict(headers), body)
    _module("auth").SigV4Auth(_module("credentials").Credentials(*parts), service, region).add_auth(request)
    return dict(request.headers.items())


def chain() -> Key:
    """AWS's own search for credentials: its variables, its files, the container, the machine. Looked for at the first call, and
    renewed when they run out, in a thread, as that may ask the network. Raises `ProviderError("unresolved")` where there are none.
    """
    found: Any = None

    def look() -> str:
        nonlocal found
        try:
            if found is None:
                found = _module("session").Session().get_credentials()
            frozen = found.get_frozen_credentials() if found is not None else None
        except ProviderError:
            raise
        except Exception as error:  # noqa: BLE001 - botocore's sources raise what they like
            raise ProviderError("unresolved", safe_text(f"AWS credentials: {error}")) from None
        if frozen is None:
            words = "set providers.NAME.api_key, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
            raise ProviderError("unresolved", f"there are no AWS credentials: {words}")
        return ":".join(part for part in (frozen.access_key, frozen.secret_key, frozen.token) if part)

    async def key() -> str:
        return await asyncio.to_thread(look)

    return key


def _module(name: str) -> Any:
    try:
        return import_module(f"botocore.{name}")
    except ModuleNotFoundError:
        raise ProviderError(
            "unresolved", "calls with AWS credentials are signed by botocore: install talon-runtime[bedrock]"
        ) from None
