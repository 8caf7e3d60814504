r"""The script of a fake model: which answer it gives to which conversation. YAML, or a Python file.

The first rule that matches answers; `default` if none does; without it the request is refused (400) in clear words. The decision
depends on the request alone, except for `times: n`: such a rule answers n times in this process and is then passed over.

    defaults: {chunk_chars: 24, chunk_delay_ms: 20}       # for every answer; also delay_ms
    rules:
      - name: throttled once                              # names appear in /requests and in errors
        when: {user: renewals, step: 1}
        times: 1
        fault: {kind: status, status: 429, retry_after_s: 1}
      - name: look up
        when:                                             # all that are given must hold
          user_matches: 'renewals due in (?P<days>\d+)'   # regular expression, anywhere in the last user text
          step: 1                                         # first model call of the turn
        reasoning: I need the list first.
        calls:                                            # one or many; the turn comes back with results
          - {tool: list_renewals, arguments: {days: '{{ match.days | json }}', note: 'asked: {{ user }}'}}
          - {tool: current_time}
      - when: {results: 2, result: enterprise}            # two results so far, one of them contains the word
        text: 'Found: {{ result.0 }}'
        delay_ms: 200                                     # before the first token
        usage: {input_tokens: 900, output_tokens: 40}     # otherwise four characters are a token
    default: {text: 'You said: {{ user }}'}

`when`: `user`, `system`, `result` contain a text (case does not matter; `result`: any result of this turn), `user_matches`,
`result_matches` (the last result) are regular expressions, `model` is equal, `step` and `results` are numbers.
An answer: `text`, `reasoning`, `calls` (`arguments` as a mapping, or as a text: then exactly what the model writes, broken or not),
`delay_ms`, `chunk_chars`, `chunk_delay_ms`, `stop_reason` (stop | tool_calls | length), `usage`, `fault`.
`fault.kind`: `status` (with `status`, `retry_after_s`, `message`), `empty` (200 and nothing), `garbage` (200 and no JSON),
`half_json`, `cut` (the connection closes), `stall` (nothing more comes); the last three after `after` pieces of the answer.
Places: `{{ user }}`, `{{ system }}`, `{{ model }}`, `{{ step }}`, `{{ results }}` (how many), `{{ result }}` (the last),
`{{ result.0 }}`, `{{ match.GROUP }}`; alone and with `| json` a place is the JSON value that it holds (`14`, not `"14"`).

A Python file defines `answer(conversation)`; it takes a `Conversation` and returns such an answer as a dict (no places).
"""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from talon.domain.errors import Invalid
from talon.providers.protocol import ChatRequest, ProviderError, ToolCall
from talon.providers.scripted import template
from talon.providers.scripted.conversation import Conversation, refusal
from talon.providers.scripted.model import Answer, Defaults, Reply, Rule, When
from talon.providers.scripted.reading import read


class Script:
    """A read script. Its only state are the counters of `times`."""

    def __init__(
        self,
        rules: tuple[Rule, ...] = (),
        default: Answer | None = None,
        defaults: Defaults | None = None,
        function: Callable[[Conversation], Any] | None = None,
    ) -> None:
        self._rules = rules
        self._default = default
        self._defaults = defaults or Defaults()
        self._function = function
        self._used = [0] * len(rules)

    @classmethod
    def load(cls, path: str | Path) -> Script:
        """Read a script file: `.py` is run, everything else is YAML. Raises `Invalid` with every wrong rule named."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise Invalid("invalid", f"the model script {path} cannot be read: {reason}") from None
        if path.suffix != ".py":
            return cls.parse(text, str(path))
        try:
            function = runpy.run_path(str(path)).get("answer")
        except Exception as error:  # noqa: BLE001 - a user's file may raise anything; they get its words, not a traceback
            raise Invalid("invalid", f"the model script {path} cannot be run: {type(error).__name__}: {error}") from None
        if not callable(function):
            raise Invalid("invalid", f"the model script {path} defines no function answer(conversation)")
        return cls(function=function)

    @classmethod
    def parse(cls, text: str, source: str = "script") -> Script:
        """Read a script from YAML text. `source` names it in errors. Raises `Invalid`."""
        parts = read(text, source)
        return cls(parts.rules, parts.default, parts.defaults)

    def reply(self, request: ChatRequest) -> Reply:
        """The answer to `request`. Raises `ProviderError("bad_request")` for what a vendor would refuse, and where the script has
        no answer or a place cannot be filled in."""
        problem = refusal(request)
        if problem:
            raise ProviderError("bad_request", problem, status=400)
        conversation = Conversation.of(request)
        try:
            if self._function is not None:
                answer = msgspec.convert(_called(self._function, conversation), Answer)
                return self._reply("answer()", answer, conversation, None)
            for index, rule in enumerate(self._rules):
                groups = self._match(index, rule, conversation)
                if groups is not None:
                    return self._reply(rule.name or f"rules[{index}]", rule, conversation, groups)
            if self._default is not None:
                return self._reply("default", self._default, conversation, {})
        except ValueError as error:  # msgspec.ValidationError too
            raise ProviderError("bad_request", f"the script cannot answer: {error}"[:500], status=400) from None
        detail = f"the script has no rule for step {conversation.step} after {conversation.user[:100]!r}, and no default"
        raise ProviderError("bad_request", detail, status=400)

    def _match(self, index: int, rule: Rule, conversation: Conversation) -> dict[str, str] | None:
        """The groups of the rule's expressions if it matches (and counts it), else None."""
        if rule.times is not None and self._used[index] >= rule.times:
            return None
        groups = matched(rule.when, conversation)
        if groups is not None:
            self._used[index] += 1
        return groups

    def _reply(self, name: str, answer: Answer, conversation: Conversation, groups: dict[str, str] | None) -> Reply:
        def fill(value: Any) -> Any:
            return value if groups is None else template.render(value, conversation, groups)

        calls = tuple(
            ToolCall(f"call_{conversation.calls + n}", spec.tool, _arguments(fill(spec.arguments)))
            for n, spec in enumerate(answer.calls)
        )
        pace = self._defaults
        return Reply(
            rule=name,
            text=fill(answer.text),
            reasoning=fill(answer.reasoning),
            calls=calls,
            delay_ms=pace.delay_ms if answer.delay_ms is None else answer.delay_ms,
            chunk_chars=pace.chunk_chars if answer.chunk_chars is None else answer.chunk_chars,
            chunk_delay_ms=pace.chunk_delay_ms if answer.chunk_delay_ms is None else answer.chunk_delay_ms,
            stop_reason=answer.stop_reason or ("tool_calls" if calls else "stop"),
            usage=answer.usage,
            fault=answer.fault,
        )


def _called(function: Callable[[Conversation], Any], conversation: Conversation) -> Any:
    try:
        return function(conversation)
    except Exception as error:  # noqa: BLE001 - the script's author hears of it in the way of every other mistake
        raise ValueError(f"answer() raised {type(error).__name__}: {error}") from None


def _arguments(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def matched(when: When, conversation: Conversation) -> dict[str, str] | None:
    """The groups of the expressions (by name and by number) if every condition holds, else None."""
    c = conversation
    plain = (
        (when.user is None or when.user.lower() in c.user.lower())
        and (when.system is None or when.system.lower() in c.system.lower())
        and (when.model is None or when.model == c.model)
        and (when.step is None or when.step == c.step)
        and (when.results is None or when.results == len(c.results))
        and (when.result is None or any(when.result.lower() in result.lower() for result in c.results))
    )
    if not plain:
        return None
    groups: dict[str, str] = {}
    for pattern, text in ((when.user_matches, c.user), (when.result_matches, c.results[-1] if c.results else "")):
        if pattern is None:
            continue
        found = re.search(pattern, text)
        if found is None:
            return None
        groups |= {str(n): value or "" for n, value in enumerate(found.groups(), 1)}
        groups |= {name: value or "" for name, value in found.groupdict().items()}
    return groups
