"""From what a request is like to the pool that answers it: rules in their order, the first that fits decides."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from penstock.core.errors import BadRequest
from penstock.core.snapshot import ChooseRule
from penstock.routing.patterns import Patterns


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What rules look at. `answer_tokens` is None where the client set no limit; header names are in lower case."""

    prompt_tokens: int
    answer_tokens: int | None = None
    messages: int = 0
    tools: bool = False
    stream: bool = False
    tenant: str = ""
    headers: Mapping[bytes, bytes] = {}
    metadata: Mapping[str, Any] = {}
    last_user: str = ""


class Chooser:
    """The rules of one route, compiled.

    Raises:
        BadRequest: if a rule's pattern is none; `param` names it, as in `choose[1].last_user`.
    """

    __slots__ = ("_rules",)

    def __init__(self, rules: Sequence[ChooseRule]) -> None:
        self._rules = [_Rule(index, rule) for index, rule in enumerate(rules)]

    def choose(self, asked: Asked) -> str | None:
        """The pool of the first rule that fits; None if none does."""
        for rule in self._rules:
            if rule.fits(asked):
                return rule.pool
        return None


class _Rule:
    __slots__ = ("_headers", "_patterns", "_rule", "pool")

    def __init__(self, index: int, rule: ChooseRule) -> None:
        self.pool = rule.pool
        self._rule = rule
        self._headers = [(name.lower().encode("latin-1", "replace"), value) for name, value in rule.headers.items()]
        try:
            self._patterns = Patterns((rule.last_user,) if rule.last_user else ())
        except BadRequest as error:
            raise BadRequest(error.message, code=error.code, param=f"choose[{index}].last_user") from None

    def fits(self, asked: Asked) -> bool:
        """Whether `asked` meets every condition; what is cheap to tell is looked at first."""
        rule = self._rule
        answer = asked.answer_tokens
        return (
            _within(rule.min_prompt_tokens, asked.prompt_tokens, rule.max_prompt_tokens)
            and _within(rule.min_messages, asked.messages, rule.max_messages)
            and (rule.min_answer_tokens is None or answer is None or answer >= rule.min_answer_tokens)
            and (rule.max_answer_tokens is None or (answer is not None and answer <= rule.max_answer_tokens))
            and (rule.tools is None or rule.tools == asked.tools)
            and (rule.stream is None or rule.stream == asked.stream)
            and (rule.tenants is None or asked.tenant in rule.tenants)
            and all(_text(asked.headers.get(name)) == value for name, value in self._headers)
            and all(asked.metadata.get(name) == value for name, value in rule.metadata.items())
            and (not self._patterns or self._patterns.found_in(asked.last_user))
        )


def _within(low: int | None, value: int, high: int | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")
