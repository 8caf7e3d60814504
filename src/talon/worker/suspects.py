"""Which turns may run beside each other though one of them may be what ends their process each time (K13). Pure.

When a process ends nobody can say which of its turns did it, so each that got nowhere is counted. From the third attempt on they
run in groups that get smaller with every attempt, so that fewer are counted with the one that does it; before a turn is given up it
has run alone. What gets on is cleared, and its place is the next one's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

#: By how much a group gets smaller with an attempt.
SHRINK = 8
#: The attempt that runs alone, and every later one; where fewer are allowed, the last one of them.
ALONE_AT = 5
#: So many attempts before that one a turn is under suspicion, but never in its first.
LADDER = 2
#: How long the first of those that find no place wait for it.
WAIT_MS = 1_000


def is_suspect(attempts: int, attempts_max: int) -> bool:
    """Whether a turn in this attempt runs in a group only. One that has no attempt left is ended and does not run at all."""
    return max(2, min(ALONE_AT, attempts_max) - LADDER) <= attempts <= attempts_max


def group_max(attempts: int, attempts_max: int) -> int:
    """How many suspects there may be in one process with a turn in this attempt: 64, 8, and then 1, of five attempts."""
    return SHRINK ** max(0, min(ALONE_AT, attempts_max) - attempts)


def admit(running: Iterable[int], claimed: Sequence[int], attempts_max: int) -> int:
    """How many of the suspects with `claimed` attempts, lowest first, may begin now, from the first one on, beside those with
    `running` attempts that have not got on yet.

    The most suspected turn says how large the group is. The others go first: they are likely to be cleared, and nothing that they
    do together comes to its account.
    """
    group = list(running)
    before = len(group)
    for attempts in claimed:
        if len(group) >= group_max(max((attempts, *group)), attempts_max):
            break
        group.append(attempts)
    return len(group) - before


def wait_ms(place: int, attempts: int, attempts_max: int) -> int:
    """How long the suspect at `place` (from 0) of those that were not admitted waits: a group after the other."""
    return WAIT_MS * (1 + place // group_max(attempts, attempts_max))
