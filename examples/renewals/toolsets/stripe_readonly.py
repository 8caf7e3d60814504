"""The toolset `stripe-readonly`: what billing knows about renewals."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from talon import ToolContext, tool

from .accounts import ACCOUNTS, AS_OF, Account, account_of
from .effects import record


@tool(effect="read", timeout_s=30)
def list_renewals(
    context: ToolContext,
    days: Annotated[int, Field(ge=1, le=365), "How many days ahead to look"] = 14,
) -> dict[str, object]:
    """List the subscriptions that renew within the next days, soonest first, with price and seats."""
    due = sorted((a for a in ACCOUNTS if 0 <= a.renews_in_days <= days), key=lambda account: account.renews_on)
    record(context, "list_renewals", "read", f"{days} days")
    return {"as_of": AS_OF, "days": days, "renewals": [_summary(account) for account in due]}


@tool(effect="read", timeout_s=30)
def get_subscription(customer: Annotated[str, "Customer id or company name"], context: ToolContext) -> dict[str, object]:
    """Get one customer's subscription: plan, price, seats bought and used, renewal date and how punctually invoices were paid."""
    account = account_of(customer)
    record(context, "get_subscription", "read", account.company)
    return {
        **_summary(account),
        "seats_used": account.seats_used,
        "auto_renews": account.auto_renews,
        "late_invoices_of_last_4": account.paid_late,
    }


def _summary(account: Account) -> dict[str, object]:
    return {
        "customer": account.customer,
        "company": account.company,
        "plan": account.plan,
        "seats": account.seats,
        "amount": f"{account.amount_cents / 100:.2f}",
        "currency": account.currency,
        "renews_on": account.renews_on,
        "renews_in_days": account.renews_in_days,
    }
