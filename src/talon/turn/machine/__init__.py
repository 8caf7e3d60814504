"""The turn as a pure state machine (kernel §1): `fold` the entries, `decide` the command. No I/O, no clock, no randomness.

    (queued) --Begin--> planning --CallModel, Listen--> deciding --RunTools--> executing --> evaluating --+
                            ^                              |                                              |
                            |                              +--> done (Finish)                             |
                            +---------------------------- compressing <-----------------------------------+

`Wait` leaves any of them for a row in the database and `turn.resumed` comes back; a crash does the same without the `Wait`.
Whatever was in flight when a worker vanished is *orphaned* by the `turn.resumed` entry, and `decide` says what becomes of it:

    model call     ResetStream, then CallModel again                                      K4
    tool call      read, idempotent: run again, same key · reconcilable: probe ·          K5
                   unsafe: uncertain, ask a human
"""

from talon.turn.machine.bounds import Bounds
from talon.turn.machine.commands import Begin, CallModel, Command, Finish, Listen, ResetStream, RunTools, Wait
from talon.turn.machine.decide import decide
from talon.turn.machine.fold import apply, fold
from talon.turn.machine.state import Call, State

__all__ = [
    "Begin",
    "Bounds",
    "Call",
    "CallModel",
    "Command",
    "Finish",
    "Listen",
    "ResetStream",
    "RunTools",
    "State",
    "Wait",
    "apply",
    "decide",
    "fold",
]
