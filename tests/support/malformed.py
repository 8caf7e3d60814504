"""Malformed manifests, each with where it is wrong, and well-formed ones beside them. For readers, plans and the HTTP routes alike:
each is refused quickly, with its field, and nothing is written."""

from __future__ import annotations

import copy
import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from talon.domain.errors import TalonError
from talon.manifest.parse import BYTES_MAX, VALUES_MAX

Code = Literal["invalid", "malformed", "too_large"]


@dataclass(frozen=True, slots=True)
class Case:
    """One malformed input. `where` is the path that one of its errors must name ("" for the whole), `words` are in its message (of
    `malformed` and `too_large` in the error's detail). `json`: it is sent as JSON. It would have written into `acme` and below."""

    name: str
    source: bytes | Callable[[], bytes] = field(repr=False)
    where: str
    words: str
    code: Code = "invalid"
    json: bool = False

    @property
    def data(self) -> bytes:
        """The bytes; large ones are made when they are asked for."""
        return self.source if isinstance(self.source, bytes) else self.source()

    def __str__(self) -> str:
        return self.name


HEAD = {"apiVersion": "talon.dev/v1alpha1"}
POLICY = {"profiles": [{"name": "p", "model": {"provider": "scripted", "name": "m"}}]}
#: A valid manifest of each kind; every table below changes one thing in one of them.
VALID: dict[str, dict[str, Any]] = {
    "Namespace": {**HEAD, "kind": "Namespace", "metadata": {"name": "acme:x"}},
    "AgentTemplate": {
        **HEAD,
        "kind": "AgentTemplate",
        "metadata": {"name": "t", "namespace": "acme"},
        "definition": {
            "customSpec": {
                "features": [{"name": "who", "type": "string"}, {"name": "tier", "type": "enum", "values": ["a", "b"]}],
                "modelPolicy": POLICY,
                "systemPrompt": "For {{ who }}.",
            }
        },
    },
    "Agent": {
        **HEAD,
        "kind": "Agent",
        "metadata": {"name": "a", "namespace": "acme"},
        "spec": {"modelPolicy": POLICY, "limits": {"tool_calls_max": 5}},
    },
    "Schedule": {
        **HEAD,
        "kind": "Schedule",
        "metadata": {"name": "s", "namespace": "acme"},
        "spec": {
            "kind": "cron",
            "cron": "0 14 * * 1-5",
            "timezone": "Europe/Berlin",
            "target": {"agent": "a", "sessionMode": "named", "sessionId": "x"},
            "inputMessage": "go",
        },
    },
    "Knowledge": {
        **HEAD,
        "kind": "Knowledge",
        "metadata": {"name": "k", "namespace": "acme"},
        "spec": {"documents": [{"name": "a.md", "content": "text"}]},
    },
    "McpServer": {
        **HEAD,
        "kind": "McpServer",
        "metadata": {"name": "m", "namespace": "acme"},
        "spec": {"transport": "http", "url": "https://mcp.example.com/mcp", "headers": {"X-Team": "acme"}},
    },
    "McpBinding": {
        **HEAD,
        "kind": "McpBinding",
        "metadata": {"name": "b", "namespace": "acme"},
        "spec": {"server": "m", "agents": ["a"], "auth": {"kind": "bearer", "secretRef": "key"}},
    },
    "Secret": {**HEAD, "kind": "Secret", "metadata": {"name": "key", "namespace": "acme"}, "spec": {"value": "v"}},
}
GONE = object()  # takes the field away


def changed(kind: str, path: str, value: Any) -> bytes:
    """The valid manifest of `kind`, as JSON, with `value` at `path` (`spec.target.agent`, `spec.documents.0.name`)."""
    data = copy.deepcopy(VALID[kind])
    at: Any = data
    *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    for part in parents:
        at = at[part]
    if value is GONE:
        del at[last]
    else:
        at[last] = value
    return json.dumps(data).encode()


# --- one wrong value: kind, where, what, the field that is named (`=` for the same), words --------------------------------------

Row = tuple[str, str, Any, str, str]
ENVELOPE: list[Row] = [
    ("Agent", "apiVersion", "talon.dev/v1", "=", "must be 'talon.dev/v1alpha1'"),
    ("Agent", "apiVersion", GONE, "=", "is missing"),
    ("Agent", "apiVersion", 1, "=", "must be 'talon.dev/v1alpha1'"),
    ("Agent", "kind", "agent", "=", "did you mean 'Agent'"),
    ("Agent", "kind", "Аgent", "=", "did you mean 'Agent'"),  # a Cyrillic A
    ("Agent", "kind", ["Agent"], "=", "must be text, not a list"),
    ("Agent", "kind", None, "=", "must be text, not nothing"),
    ("Agent", "kind", "Pod", "=", "unknown kind"),
    ("Agent", "metadata", GONE, "=", "is missing"),
    ("Agent", "metadata", [], "=", "must be a mapping"),
    ("Agent", "metadata", None, "=", "must be a mapping"),
    ("Agent", "metadata.name", GONE, "=", "is missing"),
    ("Agent", "metadata.name", "", "=", "it is empty"),
    ("Agent", "metadata.name", 7, "=", "must be text, not a number; put it in quotes"),
    ("Agent", "metadata.name", True, "=", "must be text, not a boolean"),
    ("Agent", "metadata.name", None, "=", "must be text, not nothing"),
    ("Agent", "metadata.name", {"a": "b"}, "=", "must be text, not a mapping"),
    ("Agent", "metadata.name", "a" * 64, "=", "64 characters, at most 63"),
    ("Agent", "metadata.name", "Upper", "=", "'U' is upper case"),
    ("Agent", "metadata.name", "-a", "=", "begin and end"),
    ("Agent", "metadata.name", "a-", "=", "begin and end"),
    ("Agent", "metadata.name", "a_b", "=", "'_' may not be in it"),
    ("Agent", "metadata.name", "a.b", "=", "'.' may not be in it"),
    ("Agent", "metadata.name", "..", "=", "'.' may not be in it"),
    ("Agent", "metadata.name", "../../etc/passwd", "=", "'.' may not be in it"),
    ("Agent", "metadata.name", "a/b", "=", "'/' may not be in it"),
    ("Agent", "metadata.name", "a\\b", "=", "may not be in it"),
    ("Agent", "metadata.name", "a%2fb", "=", "'%' may not be in it"),
    ("Agent", "metadata.name", "a b", "=", "' ' may not be in it"),
    ("Agent", "metadata.name", "a\n", "=", "'\\n' may not be in it"),
    ("Agent", "metadata.name", "a:b", "=", "':' may not be in it"),
    ("Agent", "metadata.name", "аgent", "=", "'\\u0430' may not be in it"),  # a Cyrillic a
    ("Agent", "metadata.name", "café", "=", "'\\xe9' may not be in it"),  # composed
    ("Agent", "metadata.name", "cafe\u0301", "=", "'\\u0301' may not be in it"),  # decomposed
    ("Agent", "metadata.name", "a\u202eb", "=", "'\\u202e' may not be in it"),  # right to left from here
    ("Agent", "metadata.name", "a\u200bb", "=", "'\\u200b' may not be in it"),  # no width
    ("Agent", "metadata.name", "ａ", "=", "'\\uff41' may not be in it"),  # full width
    ("Agent", "metadata.name", "٣", "=", "'\\u0663' may not be in it"),  # an Arabic digit
    ("Agent", "metadata.name", "ß", "=", "'\\xdf' may not be in it"),
    ("Agent", "metadata.name", "İ", "=", "may not be in it"),
    ("Agent", "metadata.namespace", "acme::x", "=", "between two : is empty"),
    ("Agent", "metadata.namespace", ":acme", "=", "between two : is empty"),
    ("Agent", "metadata.namespace", "acme:", "=", "between two : is empty"),
    ("Agent", "metadata.namespace", "acme/x", "=", "'/' may not be in it"),
    ("Agent", "metadata.namespace", ":".join(["abcdefgh"] * 40), "=", "at most 255"),
    ("Agent", "metadata.namespace", None, "=", "has no value"),
    ("Agent", "metadata.namespace", "*", "=", "'*' may not be in it"),
    ("Namespace", "metadata.namespace", "acme", "=", "unknown field"),
    ("Namespace", "spec", {}, "=", "unknown field"),
    ("Agent", "metadata.labels", [], "=", "must be a mapping"),
    ("Agent", "metadata.labels", {"a": 1}, "metadata.labels.a", "must be text, not a number; put it in quotes"),
    ("Agent", "metadata.labels", {"a": True}, "metadata.labels.a", "must be text, not a boolean"),
    ("Agent", "metadata.labels", {"a b": "c"}, 'metadata.labels["a b"]', "is no label key"),
    ("Agent", "metadata.labels", {"": "c"}, 'metadata.labels[""]', "is no label key"),
    ("Agent", "metadata.labels", {"a": "b c"}, "metadata.labels.a", "is no label value"),
    ("Agent", "metadata.labels", {"a": "x" * 64}, "metadata.labels.a", "at most 63"),
    ("Agent", "metadata.labels", {"a": "b\n"}, "metadata.labels.a", "is no label value"),
    ("Agent", "metadata.labels", {"a": "ü"}, "metadata.labels.a", "is no label value"),
    ("Agent", "metadata.labels", {f"k{at}": "v" for at in range(65)}, "metadata.labels", "has more than 64 items"),
    ("Agent", "metadata.annotations", {"a": ["b"]}, "metadata.annotations.a", "must be text, not a list"),
    ("Agent", "metadata.annotations", {"a": None}, "metadata.annotations.a", "must be text, not nothing"),
    ("Agent", "metadata.annotations", {"a": "x" * (1024 * 1024 + 1)}, "metadata.annotations.a", "more than 1048576 characters"),
    ("Agent", "metadata.uid", "00000000-0000-7000-8000-000000000000", "=", "there is no Agent acme/a"),
    ("Agent", "metadata.ownerReferences", [], "=", "unknown field"),
    ("Agent", "status", "ok", "=", "must be a mapping"),
    ("Agent", "status", {"conditons": []}, "status.conditons", "did you mean 'conditions'"),
    ("Agent", "extra", 1, "=", "unknown field"),
    ("Agent", "Spec", {}, "=", "did you mean 'spec'"),
]
AGENTS: list[Row] = [
    ("Agent", "spec", [], "=", "must be a mapping"),
    ("Agent", "spec.sistemPrompt", "x", "=", "did you mean 'systemPrompt'"),
    ("Agent", "spec.systеmPrompt", "x", 'spec["systеmPrompt"]', "did you mean 'systemPrompt'"),  # a Cyrillic e
    ("Agent", "spec.systemPrompt", 5, "=", "must be text"),
    ("Agent", "spec.systemPrompt", "a\x00b", "=", "holds a NUL character"),
    ("Agent", "spec.systemPrompt", "half \ud83d", "=", "holds half a surrogate pair"),
    ("Agent", "spec.systemPrompt", "Hi {{ whom }}", "=", "names no declared feature"),
    ("Agent", "spec.systemPrompt", "Hi {{ who | upper }}", "=", "names no declared feature"),
    ("Agent", "spec.systemPrompt", "{{ ''.__class__.__mro__ }}", "=", "names no declared feature"),
    ("Agent", "spec.systemPrompt", "x" * (1024 * 1024 + 1), "=", "more than 1048576 characters"),
    ("Agent", "spec.modelPolicy", GONE, "=", "no model profile"),
    ("Agent", "spec.modelPolicy.profiles", [], "=", "must not be empty"),
    ("Agent", "spec.modelPolicy.profiles", {}, "=", "must be a list"),
    ("Agent", "spec.modelPolicy.profiles.0", "gpt", "spec.modelPolicy.profiles[0]", "must be a mapping"),
    ("Agent", "spec.modelPolicy.profiles", POLICY["profiles"] * 2, "spec.modelPolicy.profiles[1].name", "in the list already"),
    ("Agent", "spec.modelPolicy.profiles", POLICY["profiles"] * 33, "spec.modelPolicy.profiles", "has more than 32 items"),
    ("Agent", "spec.modelPolicy.profiles.0.model.provider", "OpenAI", "spec.modelPolicy.profiles[0].model.provider", "upper case"),
    ("Agent", "spec.modelPolicy.profiles.0.model.name", "", "spec.modelPolicy.profiles[0].model.name", "must not be empty"),
    (
        "Agent",
        "spec.modelPolicy.profiles.0.model.name",
        " m",
        "spec.modelPolicy.profiles[0].model.name",
        "begins or ends with a space",
    ),
    ("Agent", "spec.modelPolicy.profiles.0.model.name", "m\u200d", "spec.modelPolicy.profiles[0].model.name", "U+200D"),
    ("Agent", "spec.modelPolicy.profiles.0.model.name", "m\u2066x", "spec.modelPolicy.profiles[0].model.name", "U+2066"),
    ("Agent", "spec.modelPolicy.profiles.0.model.name", "e\u0301", "spec.modelPolicy.profiles[0].model.name", "composed form"),
    ("Agent", "spec.modelPolicy.profiles.0.model.temperature", 2.5, "spec.modelPolicy.profiles[0].model.temperature", "at most 2"),
    ("Agent", "spec.modelPolicy.profiles.0.model.temperature", "0.2", "spec.modelPolicy.profiles[0].model.temperature", "a number"),
    ("Agent", "spec.modelPolicy.profiles.0.model.temperature", True, "spec.modelPolicy.profiles[0].model.temperature", "a number"),
    ("Agent", "spec.modelPolicy.profiles.0.model.maxTokens", 1.5, "spec.modelPolicy.profiles[0].model.maxTokens", "whole number"),
    ("Agent", "spec.limits.tool_calls_max", -1, "=", "must be at least 0"),
    ("Agent", "spec.limits.tool_calls_max", 2**63, "=", "beyond ±9007199254740991"),
    ("Agent", "spec.limits.model_calls_max", 0, "=", "must be at least 1"),
    ("Agent", "spec.limits.wall_time_max_s", 1e300, "=", "must be at most 31536000"),
    ("Agent", "spec.limits.max_tool_calls_per_run", 3, "=", "another spelling of tool_calls_max"),
    ("Agent", "spec.limits.max_tool_calls", 3, "=", "unknown field"),
    ("Agent", "spec.mcpServerRefs", "stripe", "=", "must be a list"),
    ("Agent", "spec.mcpServerRefs", ["a", "a"], "spec.mcpServerRefs[1]", "in the list already"),
    ("Agent", "spec.mcpServerRefs", ["../x"], "spec.mcpServerRefs[0]", "'.' may not be in it"),
    ("Agent", "spec.mcpServerRefs", ["other:stripe"], "spec.mcpServerRefs[0]", "':' may not be in it"),
    ("Agent", "spec.mcpServerRefs", ["m"] * 501, "spec.mcpServerRefs", "has more than 500 items"),
    ("Agent", "spec.knowledgeRefs", [None], "spec.knowledgeRefs[0]", "must be text, not nothing"),
    ("Agent", "spec.knowledgeRefs", ["k", "k"], "spec.knowledgeRefs[1]", "in the list already"),
    ("Agent", "spec.capabilities", {"allowed_tools": "all"}, "spec.capabilities.allowed_tools", "must be a list"),
    ("Agent", "spec.capabilities", {"allowedTools": []}, "spec.capabilities.allowedTools", "did you mean 'allowed_tools'"),
    ("Agent", "spec.templateRef", "nothing", "=", "no template of that name in namespace acme"),
    ("Agent", "spec.templateRef", {"name": "t", "namespace": "other"}, "spec.templateRef.namespace", "unknown field"),
    ("Agent", "spec.templateRef", "acme/t", "=", "'/' may not be in it"),
    ("Agent", "spec.profile", "fast", "=", "unknown profile"),
    ("Agent", "spec.features", {"who": "me"}, "spec.features.who", "unknown feature"),
    ("Agent", "spec.features", {f"f{at}": 1 for at in range(201)}, "spec.features", "has more than 200 items"),
    (
        "Agent",
        "definition",
        {"modelPolicy": POLICY, "customSpec": {"modelPolicy": POLICY}},
        "definition.modelPolicy",
        "in customSpec already",
    ),
    ("AgentTemplate", "definition", GONE, "=", "is missing"),
    ("AgentTemplate", "spec", {}, "=", "unknown field"),
    (
        "AgentTemplate",
        "definition.customSpec.features.0.name",
        "1st",
        "definition.customSpec.features[0].name",
        "is no feature name",
    ),
    (
        "AgentTemplate",
        "definition.customSpec.features.0.name",
        "wer-ä",
        "definition.customSpec.features[0].name",
        "is no feature name",
    ),
    ("AgentTemplate", "definition.customSpec.features.0.type", "int", "definition.customSpec.features[0].type", "must be 'string'"),
    (
        "AgentTemplate",
        "definition.customSpec.features.0.required",
        "yes",
        "definition.customSpec.features[0].required",
        "true or false",
    ),
    ("AgentTemplate", "definition.customSpec.features.0.default", 5, "definition.customSpec.features[0].default", "must be text"),
    ("AgentTemplate", "definition.customSpec.features.0.values", ["a"], "definition.customSpec.features[0].values", "only an enum"),
    (
        "AgentTemplate",
        "definition.customSpec.features.1.values",
        GONE,
        "definition.customSpec.features[1].values",
        "an enum lists its values",
    ),
    (
        "AgentTemplate",
        "definition.customSpec.features.1.values",
        [],
        "definition.customSpec.features[1].values",
        "must not be empty",
    ),
    (
        "AgentTemplate",
        "definition.customSpec.features.1.values",
        ["a", "a"],
        "definition.customSpec.features[1].values[1]",
        "already",
    ),
    ("AgentTemplate", "definition.customSpec.features.1.default", "c", "definition.customSpec.features[1].default", "one of a, b"),
    (
        "AgentTemplate",
        "definition.customSpec.features.1.name",
        "who",
        "definition.customSpec.features[1].name",
        "in the list already",
    ),
    ("AgentTemplate", "definition.customSpec.systemPrompt", "{{ nobody }}", "=", "names no declared feature"),
    ("AgentTemplate", "definition.extends", "other", "=", "unknown field"),
]
SCHEDULES: list[Row] = [
    ("Schedule", "spec.kind", "daily", "=", "must be 'cron', 'at' or 'every'"),
    ("Schedule", "spec.kind", GONE, "=", "is missing"),
    ("Schedule", "spec.kind", "at", "spec.at", "is missing: a schedule of kind at needs it"),
    ("Schedule", "spec.cron", GONE, "=", "is missing: a schedule of kind cron needs it"),
    ("Schedule", "spec.cron", "", "=", "must not be empty"),
    ("Schedule", "spec.cron", 5, "=", "must be text"),
    ("Schedule", "spec.cron", "* * * *", "=", "it has 4 fields and needs 5"),
    ("Schedule", "spec.cron", "0 * * * * *", "=", "it has 6 fields and needs 5"),
    ("Schedule", "spec.cron", "60 * * * *", "=", "'60' is no minute (0-59)"),
    ("Schedule", "spec.cron", "0 24 * * *", "=", "'24' is no hour (0-23)"),
    ("Schedule", "spec.cron", "0 0 0 * *", "=", "'0' is no day of month"),
    ("Schedule", "spec.cron", "0 0 32 * *", "=", "'32' is no day of month"),
    ("Schedule", "spec.cron", "0 0 * 13 *", "=", "'13' is no month"),
    ("Schedule", "spec.cron", "0 0 * * 8", "=", "'8' is no day of week"),
    ("Schedule", "spec.cron", "0 0 * FOO *", "=", "'FOO' is no month"),
    ("Schedule", "spec.cron", "*/0 * * * *", "=", "'*/0' is no minute"),
    ("Schedule", "spec.cron", "30-10 * * * *", "=", "'30-10' goes backwards"),
    ("Schedule", "spec.cron", "0 14 * * sat-sun", "=", "'SAT-SUN' goes backwards: a range ends at its greater number"),
    ("Schedule", "spec.cron", "0 22-2/2 * * *", "=", "write two with a comma, as 22-23,0-2 for 22-2"),
    (
        "Schedule",
        "spec.cron",
        "*/90 * * * *",
        "=",
        "leaves the minutes, of which there are 60; for longer distances write kind: every",
    ),
    ("Schedule", "spec.cron", "0 0 1 */100 *", "=", "leaves the months"),
    ("Schedule", "spec.cron", "@every 5m", "=", "for that write kind: every"),
    ("Schedule", "spec.cron", "0 0 12 * * 1", "=", "seconds are not among them"),
    ("Schedule", "spec.cron", "1,,2 * * * *", "=", "'1,,2' is no minute"),
    ("Schedule", "spec.cron", "-1 * * * *", "=", "'-1' is no minute"),
    ("Schedule", "spec.cron", "٣ * * * *", "=", "is no minute"),
    ("Schedule", "spec.cron", "0 0 * * 5L/2", "=", "is no day of week"),
    ("Schedule", "spec.cron", "0 0 30 2 *", "=", "never fires: day 30 does not come in month 2"),
    ("Schedule", "spec.cron", "0 0 30 FEB *", "=", "never fires"),
    ("Schedule", "spec.cron", "0 0 31 4,6,9,11 *", "=", "never fires"),
    ("Schedule", "spec.cron", "@reboot", "=", "of the words there are @hourly"),
    ("Schedule", "spec.cron", "@", "=", "of the words there are"),
    ("Schedule", "spec.cron", "H * * * *", "=", "'H' is no minute"),
    ("Schedule", "spec.cron", "0 0 ? * *", "=", "'?' is no day of month"),
    ("Schedule", "spec.cron", "0 14 * * 1-5\n0 15 * * *", "=", "it has 10 fields"),
    ("Schedule", "spec.cron", "1," * 200 + "1 * * * *", "=", "more than 256 characters"),
    ("Schedule", "spec.timezone", "Europe/Berln", "=", "did you mean 'Europe/Berlin'"),
    ("Schedule", "spec.timezone", "europe/berlin", "=", "did you mean 'Europe/Berlin'"),
    ("Schedule", "spec.timezone", "Berlin", "=", "did you mean 'Europe/Berlin'"),
    ("Schedule", "spec.timezone", "CEST", "=", "is no zone"),
    ("Schedule", "spec.timezone", "UTC+2", "=", "does not say when clocks change: name a place"),
    ("Schedule", "spec.timezone", "+02:00", "=", "is no zone"),
    ("Schedule", "spec.timezone", "../../../etc/passwd", "=", "is no zone"),
    ("Schedule", "spec.timezone", "localtime", "=", "is no zone"),
    ("Schedule", "spec.timezone", "America", "=", "is no zone"),
    ("Schedule", "spec.timezone", "", "=", "is no zone"),
    ("Schedule", "spec.timezone", None, "=", "must be text, not nothing"),
    ("Schedule", "spec.at", "2026-12-24T18:00:00Z", "=", "is for kind at, and this schedule is of kind cron"),
    ("Schedule", "spec.every", "5m", "=", "is for kind every"),
    ("Schedule", "spec.startingDeadline", "5 minutes", "=", "is no duration"),
    ("Schedule", "spec.startingDeadline", 300, "=", "must be text, not a number"),
    ("Schedule", "spec.startingDeadline", "PT5M", "=", "is no duration"),
    ("Schedule", "spec.startingDeadline", "-5m", "=", "is no duration"),
    ("Schedule", "spec.startingDeadline", "0s", "=", "longer than nothing"),
    ("Schedule", "spec.startingDeadline", "1000d", "=", "at most 366d"),
    ("Schedule", "spec.startingDeadline", "5m1h", "=", "is no duration"),
    ("Schedule", "spec.jitter", "25h", "=", "must be at most 24h"),
    ("Schedule", "spec.until", "2026-02-30T00:00:00Z", "=", "is no time"),
    ("Schedule", "spec.until", "tomorrow", "=", "is no time"),
    ("Schedule", "spec.until", "2026-12-24", "=", "is no time"),
    ("Schedule", "spec.until", "2026-03-29T02:30:00", "=", "never shows this time"),  # the clock in Berlin is put forward
    ("Schedule", "spec.until", "0001-01-01T00:00:00Z", "=", "the year must be"),
    ("Schedule", "spec.until", 1735689600, "=", "must be text"),
    ("Schedule", "spec.enabled", "true", "=", "must be true or false"),
    ("Schedule", "spec.enabled", 1, "=", "must be true or false"),
    ("Schedule", "spec.target", GONE, "=", "is missing"),
    ("Schedule", "spec.target", "a", "=", "must be a mapping"),
    ("Schedule", "spec.target.agent", "Customer Support", "=", "upper case"),
    ("Schedule", "spec.target.sessionId", GONE, "=", "name the session, or write sessionMode: new"),
    ("Schedule", "spec.target.sessionMode", "new", "spec.target.sessionId", "is for sessionMode named"),
    ("Schedule", "spec.target.sessionMode", "latest", "=", "must be 'named' or 'new'"),
    ("Schedule", "spec.target.namespace", "other", "=", "unknown field"),
    ("Schedule", "spec.inputMessage", "", "=", "must not be empty"),
    ("Schedule", "spec.inputMessage", GONE, "=", "is missing"),
    ("Schedule", "spec.inputMessage", "x" * 70_000, "=", "more than 65536 characters"),
    ("Schedule", "spec.overlap", "parallel", "=", "must be 'queue', 'skip' or 'cancel_running'"),
    ("Schedule", "spec.catchUp", True, "=", "must be 'none', 'one' or 'all'"),
    ("Schedule", "spec.catchUpMax", 5, "=", "is for catchUp all"),
    ("Schedule", "spec.historyLimit", 1_000_000, "=", "must be at most 1000"),
    ("Schedule", "spec.schedule", "0 0 * * *", "=", "unknown field"),
]
ENVIRONMENT: list[Row] = [
    ("Knowledge", "spec", GONE, "=", "is missing"),
    ("Knowledge", "spec.documents", [], "=", "must not be empty"),
    ("Knowledge", "spec.documents.0.name", "../../etc/passwd", "spec.documents[0].name", "no path"),
    ("Knowledge", "spec.documents.0.name", "/etc/passwd", "spec.documents[0].name", "no path"),
    ("Knowledge", "spec.documents.0.name", "..", "spec.documents[0].name", "is no document name"),
    ("Knowledge", "spec.documents.0.name", "a\\b", "spec.documents[0].name", "is no document name"),
    ("Knowledge", "spec.documents.0.name", "C:", "spec.documents[0].name", "is no document name"),
    ("Knowledge", "spec.documents.0.name", "a.md\n", "spec.documents[0].name", "is no document name"),
    ("Knowledge", "spec.documents.0.name", "prüfung.md", "spec.documents[0].name", "is no document name"),
    ("Knowledge", "spec.documents.0.content", GONE, "spec.documents[0]", "write a content or a url"),
    ("Knowledge", "spec.documents.0.content", "", "spec.documents[0].content", "must not be empty"),
    ("Knowledge", "spec.documents.0.url", "https://a.example", "spec.documents[0].url", "keep one of them"),
    ("Knowledge", "spec.documents.0.path", "/etc/passwd", "spec.documents[0].path", "unknown field"),
    ("Knowledge", "spec.documents", [{"name": "a", "content": "x"}] * 2, "spec.documents[1].name", "in the list already"),
    (
        "Knowledge",
        "spec.documents",
        [{"name": f"a{at}", "content": "x"} for at in range(501)],
        "spec.documents",
        "has more than 500 items",
    ),
    ("Knowledge", "spec.documents", [{"name": "a", "url": "file:///etc/passwd"}], "spec.documents[0].url", "write https://"),
    ("McpServer", "spec.transport", "sse", "=", "must be 'stdio' or 'http'"),
    ("McpServer", "spec.transport", "stdio", "spec.command", "is missing: transport stdio needs it"),
    ("McpServer", "spec.url", GONE, "=", "is missing: transport http needs it"),
    ("McpServer", "spec.url", "mcp.example.com", "=", "is no URL with a host"),
    ("McpServer", "spec.url", "https://", "=", "is no URL with a host"),
    ("McpServer", "spec.url", "javascript:alert(1)", "=", "is no URL with a host"),
    ("McpServer", "spec.url", "https://user:pw@mcp.example.com", "=", "holds a user or password"),
    ("McpServer", "spec.url", "https://mcp.example.com:99999", "=", "is no URL"),
    ("McpServer", "spec.url", "https://[::1", "=", "is no URL"),
    ("McpServer", "spec.url", "https://mcp.exаmple.com", "=", "visible ASCII"),  # a Cyrillic a
    ("McpServer", "spec.url", "https://mcp.example.com/a b", "=", "visible ASCII"),
    ("McpServer", "spec.url", "https://mcp.example.com/" + "x" * 2048, "=", "more than 2048 characters"),
    ("McpServer", "spec.command", "npx", "=", "is for transport stdio"),
    ("McpServer", "spec.env", {"A": "b"}, "=", "is for transport stdio"),
    ("McpServer", "spec.headers", {"X Y": "b"}, 'spec.headers["X Y"]', "is no name of a header"),
    ("McpServer", "spec.headers", {"X": "a\r\nSet-Cookie: b"}, "spec.headers.X", "visible ASCII"),
    ("McpServer", "spec.headers", {"X": "ü"}, "spec.headers.X", "visible ASCII"),
    ("McpServer", "spec.headers", {"X": 5}, "spec.headers.X", "must be text"),
    ("McpServer", "spec.headers", {"X": {"secretRef": "Upper"}}, "spec.headers.X.secretRef", "upper case"),
    ("McpServer", "spec.headers", {"X": {"secretref": "key"}}, "spec.headers.X.secretref", "did you mean 'secretRef'"),
    ("McpServer", "spec.headers", {"X": {"secretRef": "key", "key": "v"}}, "spec.headers.X.key", "unknown field"),
    ("McpServer", "spec.headers", {"X": {}}, "spec.headers.X.secretRef", "is missing"),
    ("McpServer", "spec.headers", {"X-Team": "a", "x-team": "b"}, "spec.headers.x-team", "case means nothing"),
    ("McpServer", "spec.headers", {f"x{at}": "v" for at in range(101)}, "spec.headers", "has more than 100 items"),
    ("McpServer", "spec.connectTimeout", "soon", "=", "is no duration"),
    ("McpServer", "spec.callTimeout", 60, "=", "must be text, not a number"),
    ("McpServer", "spec.tools", {"allow": ["a", "a"]}, "spec.tools.allow[1]", "in the list already"),
    ("McpServer", "spec.tools", {"allow": ["a\tb"]}, "spec.tools.allow[0]", "U+0009"),
    ("McpServer", "spec.tools", {"only": []}, "spec.tools.only", "unknown field"),
    ("McpBinding", "spec.server", GONE, "=", "is missing"),
    ("McpBinding", "spec.server", "acme/m", "=", "'/' may not be in it"),
    ("McpBinding", "spec.agents", [], "=", "must not be empty"),
    ("McpBinding", "spec.agents", "*", "=", "must be a list"),
    ("McpBinding", "spec.agents", ["a", "a"], "spec.agents[1]", "in the list already"),
    ("McpBinding", "spec.allowedTools", [""], "spec.allowedTools[0]", "must not be empty"),
    ("McpBinding", "spec.auth.kind", "basic", "=", "must be 'none', 'bearer' or 'header'"),
    ("McpBinding", "spec.auth.secretRef", GONE, "=", "is missing: auth of kind bearer"),
    ("McpBinding", "spec.auth.kind", "none", "spec.auth.secretRef", "this is none"),
    ("McpBinding", "spec.auth.kind", "header", "spec.auth.header", "name the header"),
    ("McpBinding", "spec.auth.header", "X-Key", "=", "is for kind header"),
    ("McpBinding", "spec.auth.token", "sw0rdfish", "=", "unknown field"),
    ("Secret", "spec.value", 12345, "=", "must be text, not a number"),
    ("Secret", "spec.value", "", "=", "must not be empty"),
    ("Secret", "spec.value", None, "=", "has no value"),
    ("Secret", "spec.value", {"a": "b"}, "=", "must be text, not a mapping"),
    ("Secret", "spec.value", "x" * 65_537, "=", "takes 65537 bytes; at most 65536"),
    ("Secret", "spec.value", "ä" * 32_769, "=", "takes 65538 bytes; at most 65536"),
    ("Secret", "spec.value", "a\x00b", "=", "holds a NUL character"),
    ("Secret", "spec.data", {"a": "b"}, "spec", "a field that is not known"),
    ("Secret", "spec.vaule", "sw0rdfish", "=", "did you mean 'value'"),
]

# --- what only the text of a file can be wrong about: name, text, field, words, code ------------------------------------------

AGENT = "apiVersion: talon.dev/v1alpha1\nkind: Agent\nmetadata:\n  name: a\n  namespace: acme\nspec:\n"
OWN = "  modelPolicy: {profiles: [{name: p, model: {provider: scripted, name: m}}]}\n"
TEXTS: list[tuple[str, str, str, str, Code]] = [
    (
        "a label that is no",
        AGENT.replace("namespace: acme", "labels: {country: no}") + OWN,
        "metadata.labels.country",
        "in quotes",
        "invalid",
    ),
    (
        "a label that is off",
        AGENT.replace("namespace: acme", "labels: {mode: off}") + OWN,
        "metadata.labels.mode",
        "in quotes",
        "invalid",
    ),
    (
        "a version as a label",
        AGENT.replace("namespace: acme", "labels: {version: 1.10}") + OWN,
        "metadata.labels.version",
        "put it in quotes",
        "invalid",
    ),
    ("a number as a name", AGENT.replace("name: a", "name: 123") + OWN, "metadata.name", "put it in quotes", "invalid"),
    ("a null as a name", AGENT.replace("name: a", "name: ~") + OWN, "metadata.name", "must be text, not nothing", "invalid"),
    ("nothing as a name", AGENT.replace("name: a", "name:") + OWN, "metadata.name", "must be text, not nothing", "invalid"),
    (
        "a yes where true is meant",
        "kind: Schedule\napiVersion: talon.dev/v1alpha1\nmetadata: {name: s}\nspec: {enabled: yes}",
        "spec.enabled",
        "write true, false",
        "invalid",
    ),
    (
        "an octal number",
        AGENT + OWN + "  limits: {tool_calls_max: 010}\n",
        "spec.limits.tool_calls_max",
        "must be a whole number, not text",
        "invalid",
    ),
    (
        "a hexadecimal number",
        AGENT + OWN + "  limits: {tool_calls_max: 0x10}\n",
        "spec.limits.tool_calls_max",
        "must be a whole number, not text",
        "invalid",
    ),
    (
        "a number of minutes and seconds",
        AGENT + OWN + "  limits: {tool_calls_max: 1:30}\n",
        "spec.limits.tool_calls_max",
        "must be a whole number, not text",
        "invalid",
    ),
    (
        "infinity",
        AGENT + OWN + "  limits: {wall_time_max_s: .inf}\n",
        "spec.limits.wall_time_max_s",
        "must be a number, not text",
        "invalid",
    ),
    (
        "a number that overflows",
        AGENT + OWN + "  limits: {wall_time_max_s: 1e999}\n",
        "spec.limits.wall_time_max_s",
        "is no finite number",
        "invalid",
    ),
    (
        "a number of 5,000 digits",
        AGENT + OWN + f"  limits: {{tool_calls_max: {'9' * 5000}}}\n",
        "spec.limits.tool_calls_max",
        "beyond",
        "invalid",
    ),
    (
        "the same key twice",
        AGENT + OWN + "  profile: p\n  profile: p\n",
        "spec.profile",
        "is given twice, in line 8 and line 9",
        "invalid",
    ),
    (
        "the same key twice, once in quotes",
        AGENT + OWN + "  'profile': p\n  profile: p\n",
        "spec.profile",
        "is given twice",
        "invalid",
    ),
    ("the same document twice", (AGENT + OWN + "---\n") * 2, "", "is in document 1, line 1 already", "invalid"),
    ("a merge key", "a: &a {x: 1}\n" + AGENT + "  <<: *a\n", 'spec["<<"]', "merge keys are not read here", "invalid"),
    (
        "an alias that names nothing",
        AGENT + "  systemPrompt: *nowhere\n",
        "spec.systemPrompt",
        "names nothing before it",
        "invalid",
    ),
    (
        "an alias of the document before",
        AGENT.replace("name: a", "name: &a x") + OWN + "---\n" + AGENT.replace("name: a", "name: *a") + OWN,
        "metadata.name",
        "names nothing before it",
        "invalid",
    ),
    ("an alias within itself", AGENT + "  features: &f {x: *f}\n", "spec.features.x", "names nothing before it", "invalid"),
    (
        "a Python tag",
        AGENT + "  systemPrompt: !!python/object/apply:os.system [id]\n",
        "spec.systemPrompt",
        "is not read here",
        "invalid",
    ),
    ("a tag of one's own", AGENT + "  systemPrompt: !include /etc/passwd\n", "spec.systemPrompt", "is not read here", "invalid"),
    ("a binary tag", AGENT + "  systemPrompt: !!binary aGk=\n", "spec.systemPrompt", "is not read here", "invalid"),
    ("a timestamp tag", AGENT + "  systemPrompt: !!timestamp 2020-01-01\n", "spec.systemPrompt", "is not read here", "invalid"),
    ("a list as a key", AGENT + "  ? [a]\n  : b\n", "spec", "a field's name must be plain text", "invalid"),
    ("text", "just text", "", "is text, not a manifest", "invalid"),
    ("a number", "42", "", "is a number, not a manifest", "invalid"),
    ("a list of numbers", "- 1\n- 2\n", "", "is a number, not a manifest", "invalid"),
    ("a list in a stream", "- a: 1\n---\n- b: 2\n", "", "is a list, not a manifest", "invalid"),
    ("no kind", "a: 1", "kind", "is missing; write one of Namespace", "invalid"),
    ("a session without an agent", "id: s\nns: acme\nagent: 5\n", "kind", "is missing", "invalid"),
    ("a session of no agent", "id: s\nns: acme\nagent: nobody\n", "agent", "no agent of that name in namespace acme", "invalid"),
    (
        "a session with a wrong message",
        "id: s\nns: acme\nagent: a\nmessages: [{role: system, content: x}]\n",
        "messages[0].role",
        "must be 'user' or 'assistant'",
        "invalid",
    ),
    (
        "a session that must not be changed",
        "id: s\nns: acme\nagent: a\nfeature: {}\n",
        "feature",
        "did you mean 'features'",
        "invalid",
    ),
    (
        "a schedule with a misspelt field",
        "name: s\nns: acme\nspec: {kind: cron, crom: '@daily', target: {agent: a, sessionId: x}, inputMessage: go}\n",
        "spec.crom",
        "did you mean 'cron'",
        "invalid",
    ),
    ("a schedule without a spec", "name: s\nns: acme\nspec: []\n", "kind", "is missing", "invalid"),
    ("an agent with its policy", "agent: {name: x}\npolicies: {}\n", "kind", "form not served by this version", "invalid"),
    ("an agent with two definitions", AGENT + "  templateRef: t\ndefinition: {}\n", "definition", "keep one of", "invalid"),
    (
        "a misspelt field in the second document",
        AGENT + OWN + "---\n" + AGENT.replace("name: a", "name: b") + "  modelPolice: {}\n",
        "spec.modelPolice",
        "document 2, line 15: unknown field",
        "invalid",
    ),
    ("a tab as indentation", "kind: Agent\n\tspec: x\n", "", "document 1, line 2", "malformed"),
    ("an open quote", "kind: 'Agent\n", "", "no YAML", "malformed"),
    ("an open bracket", "kind: [Agent\n", "", "no YAML", "malformed"),
    ("two values in one", "kind: a: b\n", "", "no YAML", "malformed"),
    ("a directive of another YAML", "%YAML 9.9\n---\nkind: Agent\n", "", "no YAML", "malformed"),
    ("nothing", "", "", "no document in it", "malformed"),
    ("blanks", " \n\n ", "", "no document in it", "malformed"),
    ("a comment", "# nothing\n", "", "no document in it", "malformed"),
    ("separators", "---\n---\n", "", "no document in it", "malformed"),
    ("a NUL", AGENT + "  systemPrompt: a\x00b\n", "", "line 7: a NUL character", "malformed"),
    ("a bell", AGENT + "  systemPrompt: a\x07b\n", "", "no YAML", "malformed"),
    ("an empty list", "[]", "", "no document in it", "malformed"),
]


def _bombs() -> Iterator[Case]:
    """What is small and grows, or is large, or is deep."""
    laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
    yield Case("a billion laughs", laughs.encode(), "", "with aliases replaced", "too_large")
    quadratic = f"a: &a '{'x' * 50_000}'\nb: [{','.join(['*a'] * 5_000)}]\n"
    yield Case("a long text named 5,000 times", quadratic.encode(), "", "with aliases replaced", "too_large")
    maps = "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{p: *a{n - 1}, q: *a{n - 1}}}\n" for n in range(1, 40))
    yield Case("mappings that double 40 times", maps.encode(), "", "", "too_large")
    for opening, closing, name in (("[", "]", "lists"), ('{"a":', "}", "mappings")):
        deep = AGENT.encode() + b"  x: " + opening.encode() * 10_000 + b"1" + closing.encode() * 10_000
        yield Case(f"10,000 {name} within each other", deep, "", "nested deeper than 32 levels", "too_large")
        deep = (opening * 50_000 + "1" + closing * 50_000).encode()
        yield Case(f"50,000 {name} within each other, as JSON", deep, "", "nested deeper", "too_large", json=True)
    yield Case("indented 500 times", "".join(f"{' ' * n}a:\n" for n in range(500)).encode(), "", "nested deeper", "too_large")
    for name, chunk in (
        ("one text", b"x"),
        ("a comment", b"# x\n"),
        ("blank lines", b"\n"),
        ("many documents", b"---\na: 1\n"),
        ("a long list", b"- x\n"),
        ("open brackets", b"["),
        ("quotes", b'"'),
        ("anchors", b"&a "),
    ):
        yield Case(f"10 MB: {name}", partial(_repeated, b"", chunk, b"", 10_000_000), "", str(BYTES_MAX), "too_large")
    yield Case("501 documents", b"---\na: 1\n" * 501, "", "more than 500 documents", "too_large")
    yield Case("a list of 501 documents", json.dumps([{"a": 1}] * 501).encode(), "", "at most 500", "too_large", json=True)
    yield from _long()


def _repeated(before: bytes, chunk: bytes, after: bytes, size: int = BYTES_MAX) -> bytes:
    """`chunk` again and again, to just `size` bytes in all."""
    return before + chunk * ((size - len(before) - len(after)) // len(chunk)) + after


def _numbered(before: str, chunk: str, after: str, count: int) -> bytes:
    return (before + "".join(chunk.format(at) for at in range(count)) + after).encode()


def _long() -> Iterator[Case]:
    """What fits into 4 MiB and is still too much, or wrong all over."""
    agent = AGENT.encode()
    many = f"{VALUES_MAX} values"
    yield Case("list items", partial(_repeated, agent + b"  x:\n", b"  - a\n", b""), "", many, "too_large")
    yield Case("fields", partial(_numbered, AGENT, "  f{:06d}: 1\n", "", 300_000), "", many, "too_large")
    yield Case("the same field", partial(_repeated, agent, b"  a: 1\n", b""), "", many, "too_large")
    yield Case("numbers", partial(_repeated, b'{"a":[', b"1,", b"1]}"), "", many, "too_large", json=True)
    yield Case("empty mappings", partial(_repeated, b'{"a":[', b"{},", b"{}]}"), "", many, "too_large", json=True)
    yield Case("empty lists", partial(_repeated, b'{"a":[', b"[],", b"[]]}"), "", many, "too_large", json=True)
    yield Case("empty lists in YAML", partial(_repeated, agent + b"  x: [", b"[],", b"[]]\n"), "", many, "too_large")
    yield Case("aliases", partial(_repeated, agent + b"  y: &y z\n  x: [", b"*y,", b"1]\n"), "", many, "too_large")
    yield Case("commas in a text", partial(_repeated, b'{"kind": "', b",", b'"}'), "kind", "unknown kind", json=True)
    yield Case("open quotes", partial(_repeated, b'{"a":[', b'"\\",', b"1]}"), "", "no JSON", "malformed", json=True)
    escapes = partial(_repeated, agent + OWN.encode() + b'  systemPrompt: "', b"\\u0041", b'"\n', 3 * 1024 * 1024)
    yield Case("escapes, with a wrong name", lambda: escapes().replace(b"name: a", b"name: A"), "metadata.name", "upper case")
    yield Case("one line", partial(_repeated, agent + b"  profile: ", b"x", b"\n"), "spec.profile", "at most 63")
    yield Case("one long key", partial(_repeated, agent + b"  ? ", b"x", b"\n  : 1\n"), "", "unknown field")
    yield Case("500 wrong documents", b"---\n".join([agent + b"  modelPolice: {}\n"] * 500), "spec.modelPolice", "unknown field")
    yield Case("35,000 unknown fields", partial(_numbered, AGENT, "  f{:06d}: 1\n", "", 35_000), "", "more errors in this document")
    yield Case("35,000 doubled fields", agent + b"  a: 1\n" * 35_000, "", "more errors in this document")
    yield Case(
        "35,000 words that are no", agent + b"  mcpServerRefs: [" + b"no," * 35_000 + b"no]\n", "", "more errors in this document"
    )
    prompt = AGENT + OWN + "  systemPrompt: '"
    places = partial(_numbered, prompt, "{{{{ p{:06d} }}}}", "'\n", 60_000)
    yield Case("60,000 places in a prompt", places, "spec.systemPrompt", "names no declared feature")
    for name, chunk in (("braces that never close", b"{{"), ("blanks in an open place", b" ")):
        wide = prompt.replace("name: a", "name: A").encode() + b"{{"
        yield Case(f"a prompt of {name}", partial(_repeated, wide, chunk, b"'\n", 1_000_000), "metadata.name", "upper case")
    profile = b'{"name": "p", "model": {"provider": "x", "name": "y"}}'
    doubles = agent + b"  modelPolicy: {profiles: [" + b",".join([profile] * 5_000) + b"]}\n"
    yield Case("5,000 profiles of one name", doubles, "spec.modelPolicy.profiles", "has more than 32 items")
    sessions = "id: s\nagent: a\nns: acme\nmessages:\n" + "- {role: user, content: x}\n" * 10_001
    yield Case("10,001 messages", sessions.encode(), "messages", "has more than 10000 items")


def _bytes() -> Iterator[Case]:
    """What is no text, or another text than it seems."""
    agent = (AGENT + OWN).encode()
    yield Case("bytes that are no UTF-8", agent + b"  profile: \xff\n", "", "line 8: byte", "malformed")
    yield Case("Latin-1", agent + "  systemPrompt: für\n".encode("latin-1"), "", "is not UTF-8", "malformed")
    yield Case("UTF-16", (AGENT + OWN).encode("utf-16"), "", "is not UTF-8", "malformed")
    yield Case("an overlong slash", agent + b"  profile: \xc0\xaf\n", "", "is not UTF-8", "malformed")
    yield Case("half a pair in UTF-8", agent + b"  profile: \xed\xa0\xbd\n", "", "is not UTF-8", "malformed")
    yield Case(
        "half a pair, escaped",
        changed("Agent", "metadata.annotations", {"a": "\ud800"}),
        "metadata.annotations.a",
        "half a surrogate",
    )
    yield Case(
        "half a pair in a name",
        changed("Agent", "metadata.annotations", {"\udfff": "a"}),
        'metadata.annotations["\\udfff"]',
        "half a surrogate",
    )
    yield Case("JSON with the same key twice", b'{"kind": "Agent", "kind": "Agent"}', "kind", "is given twice", json=True)
    yield Case("JSON with NaN", b'{"a": NaN}', "", "NaN is no JSON number", "malformed", json=True)
    yield Case("JSON with a comment", b'{"a": 1 /* b */}', "", "no JSON", "malformed", json=True)
    yield Case("JSON with a comma too many", b'{"a": 1,}', "", "no JSON", "malformed", json=True)
    yield Case("JSON that ends early", b'{"a": {', "", "no JSON", "malformed", json=True)
    yield Case("YAML where JSON is said", agent, "", "no JSON", "malformed", json=True)
    yield Case("an executable", b"\x7fELF\x02\x01\x01\x00" + bytes(range(256)) * 16, "", "is not UTF-8", "malformed")
    yield Case("a gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", "", "is not UTF-8", "malformed")


def cases() -> list[Case]:
    """All of them."""
    found: list[Case] = []
    for rows in (ENVELOPE, AGENTS, SCHEDULES, ENVIRONMENT):
        for kind, path, value, where, words in rows:
            what = "absent" if value is GONE else ascii(value)[:60]
            where = path if where == "=" else where
            found.append(Case(f"{kind}.{path} is {what} ({len(found)})", changed(kind, path, value), where, words))
    found += [Case(name, text.encode(), where, words, code) for name, text, where, words, code in TEXTS]
    return [*found, *_bytes(), *_bombs()]


def controls() -> list[Case]:
    """What is well-formed and lies close to something above."""
    plain = {f"a {kind}": json.dumps(data) for kind, data in VALID.items()}
    labelled = AGENT.replace(
        "namespace: acme", "namespace: acme\n  labels: {country: 'no', version: '1.10', id: '007', d: 2020-01-01}"
    )
    texts = {
        "quoted traps": labelled + OWN,
        "the longest name": json.dumps(VALID["Agent"]).replace('"name": "a"', f'"name": "{"a" * 63}"'),
        "an anchor that is used": AGENT + "  systemPrompt: &p hello\n  profile: p\n" + OWN,
        "braces that are meant": AGENT + OWN + "  systemPrompt: 'write \\{{ x }}'\n",
        "a prompt in any script": AGENT + OWN + "  systemPrompt: 'Grüße, 你好, \u05e9\u05dc\u05d5\u05dd'\n",
        "a mark at the beginning of the file": "\ufeff" + AGENT + OWN,
        "lines that end as on Windows": (AGENT + OWN).replace("\n", "\r\n"),
        "the longest secret": json.dumps(VALID["Secret"]).replace('"v"', f'"{"x" * 65_536}"'),
        "leap day": json.dumps(VALID["Schedule"]).replace("0 14 * * 1-5", "0 0 29 2 *"),
        "an impossible day or a Monday": json.dumps(VALID["Schedule"]).replace("0 14 * * 1-5", "0 0 30 2 MON"),
        "a word for a cron": json.dumps(VALID["Schedule"]).replace("0 14 * * 1-5", "@Daily"),
        "500 documents": "---\n".join((AGENT + OWN).replace("name: a\n", f"name: a{at}\n") for at in range(500)),
    }
    return [Case(name, text.encode(), "", "") for name, text in {**plain, **texts}.items()]


# --- how long, and how much memory --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one input in a process of its own. `code` is "passed" for what was accepted; `fields` are (path, message)."""

    name: str
    code: str
    detail: str
    fields: tuple[tuple[str, str], ...]
    cpu_s: float
    memory_mb: float


#: Inputs above this are read in a process of their own, so that what they take is known.
_SMALL = 64 * 1024


def outcome_of(case: Case, work: Callable[[bytes, bool], None]) -> Outcome:
    """Run `work` on the data of a case, a large one in a fork of this process, and measure it."""
    if isinstance(case.source, bytes) and len(case.source) <= _SMALL:
        return _outcome(case, _tried(case, work), _peak_kb())
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(theirs, "wb") as out:
                out.write(json.dumps([_tried(case, work), _peak_kb()]).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        told, peak_kb = json.loads(pipe.read() or b'[["died", "without a word", [], 0], 0]')
    os.waitpid(child, 0)
    return _outcome(case, told, peak_kb)


def _peak_kb() -> float:
    """The most memory that this program held. `ru_maxrss` would also count what its parent held before it became this program."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


Told = tuple[str, str, list[tuple[str, str]], float]


def _outcome(case: Case, told: Told, memory_kb: float) -> Outcome:
    code, detail, fields, cpu_s = told
    return Outcome(case.name, code, detail, tuple((path, message) for path, message in fields), cpu_s, memory_kb / 1024)


def _tried(case: Case, work: Callable[[bytes, bool], None]) -> Told:
    data, before = case.data, time.process_time()
    told: tuple[str, str, list[tuple[str, str]]] = ("passed", "", [])
    try:
        work(data, case.json)
    except TalonError as refused:
        told = (refused.code, refused.detail, [(one.field, one.message) for one in refused.errors])
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
        told = ("crashed", repr(error), [])
    code, detail, fields = told
    return code, detail, fields, time.process_time() - before


def wrong_with(case: Case, outcome: Outcome) -> str:
    """What `outcome` misses of what `case` expects, or nothing."""
    if outcome.code != case.code:
        return f"{outcome.code} instead of {case.code}: {outcome.detail[:300]}"
    if case.code != "invalid":
        return "" if case.words in outcome.detail else f"{case.words!r} is not said: {outcome.detail[:300]}"
    said = [message for path, message in outcome.fields if path == case.where or not case.where]
    return (
        "" if any(case.words in message for message in said) else f"{case.where}: {case.words!r} is not said: {outcome.fields[:5]}"
    )
