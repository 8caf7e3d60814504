"""Many calls to a server that is faulty in every way: no hang, no silent end, each paid for once, nothing left behind.

A bounded part here; with TALON_TEST_FAULTY_CALLS=10000 in the environment, all of it.
"""

from __future__ import annotations

import os
import random

import pytest

from support.vendors.base import Vendor
from support.vendors.faulty import storm
from support.vendors.table import VENDORS

CALLS = int(os.environ.get("TALON_TEST_FAULTY_CALLS", "400"))


@pytest.mark.timeout(60 + CALLS // 10)
@pytest.mark.parametrize("vendor", VENDORS, ids=[vendor.kind for vendor in VENDORS])
async def test_every_call_of_many_faulty_ones_ends_as_what_it_is(vendor: Vendor) -> None:
    seed = int(os.environ.get("TALON_TEST_SEED") or random.randrange(2**32))
    print(f"TALON_TEST_SEED={seed}")
    tally = await storm(vendor, seed, CALLS)
    assert tally.wrong == []
    assert sum(tally.ends.values()) == CALLS
    assert {"finished", "cancelled", "timeout", "connection", "malformed", "empty"} <= set(tally.ends), tally.ends
