"""What a broker carries: a doorbell, never a truth (K7).

A bell says that something is runnable, or that sessions or namespaces have something new. Whoever hears it looks into the store.
Bells may be lost, repeated and reordered; nothing is decided from one.

On the wire a bell is ASCII text: `*` for "look at everything", else `r` if something is runnable, followed by `SID:SEQ` pairs and
by `@NAMESPACE` for each namespace whose resources changed (`@` alone: the namespaces themselves), parted by spaces
(`r 12:45 13:7`, `@acme @`). The PostgreSQL store writes this form inside its statements.
"""

from __future__ import annotations

import msgspec

#: PostgreSQL's NOTIFY takes less than 8000 bytes.
WIRE_MAX = 7_900
#: The channel of PostgreSQL's LISTEN and NOTIFY.
CHANNEL = "talon_bell"


class Bell(msgspec.Struct, frozen=True):
    """`runnable`: a session may be claimed. `tails`: (sid, seq) pairs: that session has something new, its journal goes up to at
    least seq (fragments lengthen no journal, so the same seq may come again). `namespaces`: resources changed in these ("": the
    namespaces themselves). `everything`: nobody knows, look at all."""

    runnable: bool = False
    tails: tuple[tuple[int, int], ...] = ()
    namespaces: tuple[str, ...] = ()
    everything: bool = False

    def __bool__(self) -> bool:
        return self.runnable or self.everything or bool(self.tails) or bool(self.namespaces)


EVERYTHING = Bell(runnable=True, everything=True)


def encode(bell: Bell) -> str:
    """The wire form; one that would be over `WIRE_MAX` bytes becomes "look at everything"."""
    if bell.everything:
        return "*"
    words = [
        *(["r"] if bell.runnable else []),
        *(f"{sid}:{seq}" for sid, seq in bell.tails),
        *(f"@{one}" for one in bell.namespaces),
    ]
    text = " ".join(words)
    return text if len(text) <= WIRE_MAX else "*"


def decode(text: str) -> Bell:
    """The bell of a wire form. One that cannot be read (of a newer program) is `EVERYTHING`: looking is never wrong."""
    runnable = False
    tails: list[tuple[int, int]] = []
    namespaces: list[str] = []
    for word in text.split():
        sid, colon, seq = word.partition(":")
        if word == "r":
            runnable = True
        elif word.startswith("@"):
            namespaces.append(word[1:])
        elif colon and sid.isdecimal() and seq.isdecimal():
            tails.append((int(sid), int(seq)))
        else:
            return EVERYTHING
    return Bell(runnable, tuple(tails), tuple(namespaces))
