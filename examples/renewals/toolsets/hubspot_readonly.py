"""The toolset `hubspot-readonly`: what the CRM knows about a company, and drafts that a person sends.

It changes nothing that a customer sees. Drafting does leave something behind, so it declares an effect: `idempotent`, because the
draft is filed under the call's key, and filing it twice leaves one.
"""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

from pydantic import Field

from talon import ToolContext, ToolError, tool

from .accounts import Contact, Note, account_of
from .effects import record


@tool(effect="read", timeout_s=30)
def list_contacts(company: Annotated[str, "Company name or customer id"], context: ToolContext) -> list[Contact]:
    """List the people we know at a company, with role and e-mail address."""
    account = account_of(company)
    record(context, "list_contacts", "read", account.company)
    return list(account.contacts)


@tool(effect="read", timeout_s=30)
def recent_notes(
    company: Annotated[str, "Company name or customer id"],
    context: ToolContext,
    limit: Annotated[int, Field(ge=1, le=20), "At most so many"] = 5,
) -> list[Note]:
    """Read the newest notes that colleagues left about a company, newest first."""
    account = account_of(company)
    record(context, "recent_notes", "read", account.company)
    return sorted(account.notes, key=lambda note: note.written_on, reverse=True)[:limit]


@tool(effect="idempotent", timeout_s=120)
async def draft_follow_up(
    company: str,
    to: str,
    subject: Annotated[str, Field(min_length=1, max_length=200)],
    body: Annotated[str, Field(min_length=1, max_length=10_000)],
    context: ToolContext,
) -> dict[str, str]:
    """File the draft of a follow-up e-mail with a company's account. A person reads and sends it.

    Args:
        company: Company name or customer id.
        to: E-mail address of one of the company's contacts.
        subject: The e-mail's subject line.
        body: The e-mail's text.
    """
    account = account_of(company)
    if to not in [contact.email for contact in account.contacts]:
        raise ToolError(f"{to!r} is no contact of {account.company}; use list_contacts")
    # The effect happens here …
    await asyncio.to_thread(record, context, "draft_follow_up", "idempotent", account.company)
    # … and the CRM takes its time to say so: long enough for the demo to kill the process between effect and receipt.
    await asyncio.sleep(float(os.environ.get("RENEWALS_SLOW_S", "0")))
    return {
        "draft": f"draft-{context.key[-8:]}",
        "company": account.company,
        "to": to,
        "subject": subject,
        "state": "waiting to be sent",
    }
