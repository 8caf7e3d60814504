"""The accounts of the example, as billing and CRM know them on one fixed day: the same question always has the same answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from talon import ToolError

AS_OF = date(2026, 11, 20)


@dataclass(frozen=True)
class Contact:
    name: str
    role: str
    email: str


@dataclass(frozen=True)
class Note:
    written_on: date
    text: str


@dataclass(frozen=True)
class Account:
    """One customer. `amount_cents` is a year's price; `paid_late` how many of the last four invoices were paid late."""

    customer: str
    company: str
    plan: str
    seats: int
    seats_used: int
    amount_cents: int
    currency: str
    renews_on: date
    auto_renews: bool
    paid_late: int
    contacts: tuple[Contact, ...]
    notes: tuple[Note, ...]

    @property
    def renews_in_days(self) -> int:
        return (self.renews_on - AS_OF).days


ACCOUNTS = (
    Account(
        customer="cus_globex",
        company="globex",
        plan="enterprise",
        seats=240,
        seats_used=236,
        amount_cents=5_760_000,
        currency="EUR",
        renews_on=date(2026, 11, 27),
        auto_renews=False,
        paid_late=0,
        contacts=(
            Contact("Mara Lindqvist", "Head of Operations", "mara@globex.example"),
            Contact("Tom Adeyemi", "Procurement", "tom@globex.example"),
        ),
        notes=(
            Note(date(2026, 11, 12), "Mara asked for 40 more seats and a price for two years."),
            Note(date(2026, 9, 30), "Quarterly review: very happy with the reporting."),
        ),
    ),
    Account(
        customer="cus_initech",
        company="initech",
        plan="enterprise",
        seats=80,
        seats_used=31,
        amount_cents=1_920_000,
        currency="EUR",
        renews_on=date(2026, 12, 1),
        auto_renews=False,
        paid_late=3,
        contacts=(Contact("Bill Okafor", "IT Manager", "bill@initech.example"),),
        notes=(
            Note(date(2026, 11, 3), "Bill says that the team shrank; he wants to pay for the seats in use only."),
            Note(date(2026, 8, 14), "Two open tickets about single sign-on, both older than a month."),
        ),
    ),
    Account(
        customer="cus_umbrella",
        company="umbrella",
        plan="business",
        seats=25,
        seats_used=25,
        amount_cents=300_000,
        currency="EUR",
        renews_on=date(2026, 12, 4),
        auto_renews=True,
        paid_late=0,
        contacts=(Contact("Ada Winter", "Founder", "ada@umbrella.example"),),
        notes=(Note(date(2026, 10, 21), "Renews by itself; Ada only wants the invoice in November."),),
    ),
    Account(
        customer="cus_hooli",
        company="hooli",
        plan="enterprise",
        seats=900,
        seats_used=871,
        amount_cents=21_600_000,
        currency="USD",
        renews_on=date(2027, 1, 15),
        auto_renews=False,
        paid_late=1,
        contacts=(Contact("Gavin Bell", "VP Engineering", "gavin@hooli.example"),),
        notes=(Note(date(2026, 11, 18), "Security review is scheduled for the first week of December."),),
    ),
    Account(
        customer="cus_vandelay",
        company="vandelay",
        plan="starter",
        seats=5,
        seats_used=2,
        amount_cents=30_000,
        currency="EUR",
        renews_on=date(2026, 11, 21),
        auto_renews=True,
        paid_late=0,
        contacts=(Contact("Art Costa", "Owner", "art@vandelay.example"),),
        notes=(),
    ),
)


def account_of(name: str) -> Account:
    """The account with this company name or customer id, whatever its capitals."""
    wanted = name.strip().lower()
    for account in ACCOUNTS:
        if wanted in (account.company, account.customer):
            return account
    known = ", ".join(account.company for account in ACCOUNTS)
    raise ToolError(f"there is no account {name!r}; known companies: {known}")
