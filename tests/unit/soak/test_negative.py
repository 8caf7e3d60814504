"""The negative controls of the soak take out what is there."""

from __future__ import annotations

from soak.negative import FENCE
from talon.store.postgres import commit_sql


def test_the_fence_that_is_taken_out_is_the_one_of_every_commit() -> None:
    assert commit_sql.MOVED.count(FENCE) == 1
    assert FENCE in commit_sql.commit((), notify=False)
