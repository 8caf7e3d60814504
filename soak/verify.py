"""What must hold of a session, asked of its journal, of the turns' rows and of the counter outside, after it has come to rest."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from soak.follower import ENDS, digest
from soak.plans import read

Entry = Mapping[str, Any]
RECEIPTS = frozenset({"tool.finished", "tool.failed", "tool.denied"})


@dataclass
class Accepted:
    """A message that was answered with 202."""

    key: str
    content: str
    seq: int
    turn_id: str


@dataclass
class Findings:
    """What was found. `orphans`: workers that left a step without an end; `ends`: how turns ended; `reasons` of failures."""

    violations: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    orphans: set[str] = field(default_factory=set[str])
    ends: Counter[str] = field(default_factory=Counter[str])
    reasons: Counter[str] = field(default_factory=Counter[str])
    takeovers: int = 0


def verify(
    session: str,
    journal: Sequence[Entry],
    rows: Sequence[Mapping[str, Any]],
    keys: Sequence[Mapping[str, Any]],
    accepted: Sequence[Accepted],
    streamed: Mapping[int, bytes],
) -> Findings:
    """-> everything that is wrong. `keys` are the counter's, `streamed` what a follower received (seq -> digest)."""
    found = Findings()

    def wrong(kind: str, detail: str) -> None:
        found.violations.append((kind, f"session {session}: {detail}"))

    seqs = [entry["seq"] for entry in journal]
    if seqs != list(range(1, len(seqs) + 1)):
        wrong("seq gap", f"{_first_gap(seqs)}")
    _messages(journal, accepted, wrong)
    turns: dict[str, list[Entry]] = defaultdict(list)
    for entry in journal:
        if entry["turn_id"]:
            turns[entry["turn_id"]].append(entry)
    said = {entry["seq"]: entry["payload"]["content"] for entry in journal if entry["type"] == "message.received"}
    for turn_id, own in turns.items():
        _turn(turn_id, own, said, found, wrong)
    _rows(turns, rows, wrong)
    _fences(journal, wrong)
    _orphans(journal, found)
    _effects(journal, turns, keys, wrong)
    for entry in journal:
        if (seen := streamed.get(entry["seq"])) is not None and seen != digest(entry["type"], entry["turn_id"], entry["payload"]):
            wrong("entry changed", f"the stream and the journal tell different things of entry {entry['seq']}: {dict(entry)}")
    if streamed and (lost := max(streamed) - len(journal)) > 0:
        wrong("lost entry", f"{lost} entries were streamed and are not in the journal")
    return found


Wrong = Callable[[str, str], None]


def _first_gap(seqs: Sequence[int]) -> str:
    for expected, seq in enumerate(seqs, 1):
        if seq != expected:
            return f"entry {seq} stands where {expected} was due"
    return ""


def _messages(journal: Sequence[Entry], accepted: Sequence[Accepted], wrong: Wrong) -> None:
    received = {entry["seq"]: entry for entry in journal if entry["type"] == "message.received"}
    times = Counter(read(entry["payload"]["content"]).tag for entry in received.values())
    for message in accepted:
        tag = read(message.content).tag
        entry = received.get(message.seq)
        if times[tag] == 0:
            wrong("lost message", f"{tag} was answered with 202 (turn {message.turn_id}, seq {message.seq}) and is nowhere")
        elif times[tag] > 1:
            wrong("message twice", f"{tag} was accepted {times[tag]} times under one key")
        elif entry is None or entry["payload"]["content"] != message.content or entry["turn_id"] != message.turn_id:
            wrong("wrong receipt", f"{tag} is not entry {message.seq} of turn {message.turn_id}")


def _turn(turn_id: str, own: Sequence[Entry], said: Mapping[int, str], found: Findings, wrong: Wrong) -> None:
    ends = [entry for entry in own if entry["type"] in ENDS]
    if len(ends) != 1:
        kind = "double completion" if ends else "stuck turn"
        wrong(kind, f"turn {turn_id} has the ends {[entry['type'] for entry in ends]}; its last entry: {dict(own[-1])}")
        return
    end = ends[0]
    found.ends[end["type"]] += 1
    if end["type"] == "turn.failed":
        found.reasons[end["payload"]["reason"]] += 1
    late = [entry["type"] for entry in own if entry["seq"] > end["seq"] and entry["type"] != "approval.resolved"]
    if late:
        wrong("entry after the end", f"turn {turn_id} goes on after its end with {late}")
    _steps(turn_id, own, end, wrong)
    answers = [entry["payload"]["content"] for entry in own if entry["type"] == "message.completed"]
    # A message that was steered to a turn which ended first is queued as a turn of its own, by its number.
    heard = {entry["seq"] for entry in own} | {entry["payload"]["message_seq"] for entry in own if entry["type"] == "turn.queued"}
    asked = [read(content) for seq, content in said.items() if seq in heard]
    if end["type"] == "turn.completed" and (len(answers) != 1 or answers[0] not in [plan.answer for plan in asked]):
        wrong("wrong answer", f"turn {turn_id} was completed with {answers}, asked were {[plan.tag for plan in asked]}")


def _steps(turn_id: str, own: Sequence[Entry], end: Entry, wrong: Wrong) -> None:
    """K4: one receipt for each model call and each tool call, or a word about its loss."""
    kinds = Counter(entry["type"] for entry in own)
    lost = {
        entry["payload"]["model_seq"]
        for entry in own
        if entry["type"] == "stream.reset" and entry["payload"].get("reason") == "worker_lost"
    }
    if kinds["model.started"] != kinds["model.finished"] + kinds["model.failed"] + len(lost):
        wrong("model call", f"turn {turn_id}: {dict(kinds)}, lost with their worker: {sorted(lost)}")
    requested = [entry["payload"]["call"] for entry in own if entry["type"] == "tool.requested"]
    receipts = Counter(entry["payload"]["call"] for entry in own if entry["type"] in RECEIPTS)
    uncertain = {entry["payload"]["call"] for entry in own if entry["type"] == "tool.uncertain"}
    if len(requested) != len(set(requested)):
        wrong("repeated entry", f"turn {turn_id} requested the calls {requested}")
    for call in requested:
        if receipts[call] > 1 or (receipts[call] == 0 and (end["type"] == "turn.completed" or call not in uncertain)):
            wrong("receipts", f"turn {turn_id} ({end['type']}): call {call} has {receipts[call]} receipts")


def _rows(turns: Mapping[str, Sequence[Entry]], rows: Sequence[Mapping[str, Any]], wrong: Wrong) -> None:
    states = {row["turn_id"]: row["state"] for row in rows}
    for turn_id, own in turns.items():
        end = next((entry["type"] for entry in own if entry["type"] in ENDS), "")
        if end and states.get(turn_id) != end.removeprefix("turn."):
            wrong("projection", f"turn {turn_id} ends with {end}, its row says {states.get(turn_id)}")
    for turn_id in states.keys() - turns.keys():
        wrong("lost entry", f"turn {turn_id} has a row and no entry")


def _fences(journal: Sequence[Entry], wrong: Wrong) -> None:
    fences = [entry["payload"]["fence"] for entry in journal if entry["type"] in ("turn.started", "turn.resumed")]
    if fences != sorted(set(fences)):
        wrong("two workers", f"the fences do not grow: {fences}")


def _orphans(journal: Sequence[Entry], found: Findings) -> None:
    """Workers that were gone while a step of theirs was under way: the next one resumed it."""
    worker = ""
    under_way: set[int] = set()
    for entry in journal:
        type_, payload = entry["type"], entry["payload"]
        if type_ in ("turn.started", "turn.resumed"):
            if type_ == "turn.resumed" and payload["why"] == "takeover":
                found.takeovers += 1
                if under_way:
                    found.orphans.add(worker)
            worker = payload["worker"]
            under_way.clear()
        elif type_ == "model.started":
            under_way.add(0)
        elif type_ in ("model.finished", "model.failed", "stream.reset"):
            under_way.discard(0)
        elif type_ == "tool.started":
            under_way.add(payload["call"])
        elif type_ in RECEIPTS or type_ == "tool.uncertain":
            under_way.discard(payload["call"])


def _effects(
    journal: Sequence[Entry], turns: Mapping[str, Sequence[Entry]], keys: Sequence[Mapping[str, Any]], wrong: Wrong
) -> None:
    """K5, against the world: no attempt without intent, no effect twice, none lost, nothing unsafe repeated unasked."""
    world = {key["key"]: key for key in keys}
    subjects = Counter(key["subject"] for key in keys if key["effect"] != "read")
    for subject, times in subjects.items():
        if times > 1:
            wrong("repeated effect", f"{subject} was acted on under {times} keys")
    known: set[str] = set()
    for turn_id, own in turns.items():
        calls: dict[int, list[Entry]] = defaultdict(list)
        for entry in own:
            if "call" in entry["payload"]:
                calls[entry["payload"]["call"]].append(entry)
        for call, entries in calls.items():
            started = [entry["payload"] for entry in entries if entry["type"] == "tool.started"]
            used = {payload["key"] for payload in started}
            if len(used) > 1 or used & known:
                wrong("keys", f"turn {turn_id} call {call} has the keys {used}")
            known |= used
            for key in used:
                retries = sum(e["type"] == "approval.resolved" and e["payload"]["outcome"] == "retry" for e in entries)
                _call(f"turn {turn_id} call {call}", started, entries, world.get(key), retries, wrong)
    for key in world.keys() - known:
        wrong("attempt without intent", f"{json.dumps(world[key])}")


def _call(
    what: str,
    started: Sequence[Mapping[str, Any]],
    entries: Sequence[Entry],
    seen: Mapping[str, Any] | None,
    retries: int,
    wrong: Wrong,
) -> None:
    effect = started[0].get("effect", "unsafe")
    happened = seen["happened"] if seen else 0
    finished = next((entry["payload"] for entry in entries if entry["type"] == "tool.finished"), None)
    told = f"{what} ({effect}): {json.dumps(seen)}, {len(started)} intents, {retries} retries"
    if effect == "unsafe" and len(started) > 1 + retries:
        wrong("silent repeat", told)
    if finished is not None and finished.get("source", "run") != "human" and not happened:
        wrong("lost effect", told)
    if seen is None:
        return
    if effect in ("idempotent", "reconcilable") and happened > 1:
        wrong("repeated effect", told)
    if effect == "unsafe" and len(seen["attempts"]) > 1 + retries:
        wrong("silent repeat", told)
    if len(seen["attempts"]) > len(started) or len(set(seen["attempts"])) != len(seen["attempts"]):
        wrong("attempt without intent", told)
