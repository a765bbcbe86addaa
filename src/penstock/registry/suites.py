"""Evaluation suites: questions with what a right answer is, one JSON document a line. The SHA-256 of the lines names the suite."""

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal

import msgspec
import re2

from penstock.core.digests import sha256_digest
from penstock.core.errors import BadRequest
from penstock.registry.harness import Harness, read_harness

MOST_BYTES = 4 << 20
MOST_ITEMS = 20_000
_MOST_PATTERN = 4096


class Exact(msgspec.Struct, frozen=True, kw_only=True, tag="exact", tag_field="type", forbid_unknown_fields=True):
    """The answer is one of `answers`, spaces around it left out."""

    answers: tuple[str, ...]
    ignore_case: bool = False


class Contains(msgspec.Struct, frozen=True, kw_only=True, tag="contains", tag_field="type", forbid_unknown_fields=True):
    """The answer holds all of `all_of`, one of `any_of` where there are any, and none of `none_of`."""

    all_of: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    ignore_case: bool = True


class Regex(msgspec.Struct, frozen=True, kw_only=True, tag="regex", tag_field="type", forbid_unknown_fields=True):
    """RE2 is found in the answer."""

    pattern: str


class JsonSchema(
    msgspec.Struct, frozen=True, kw_only=True, tag="json_schema", tag_field="type", forbid_unknown_fields=True
):
    """The answer is a JSON document that fits a JSON Schema (draft 2020-12)."""

    json_schema: dict[str, Any] = msgspec.field(name="schema")


class Numeric(msgspec.Struct, frozen=True, kw_only=True, tag="numeric", tag_field="type", forbid_unknown_fields=True):
    """The last number in the answer is `value`, give or take `tolerance`."""

    value: float
    tolerance: float = 0.0


class Judge(msgspec.Struct, frozen=True, kw_only=True, tag="judge", tag_field="type", forbid_unknown_fields=True):
    """Another version, the judge, says yes to `question` about the answer."""

    question: str


class Safety(msgspec.Struct, frozen=True, kw_only=True, tag="safety", tag_field="type", forbid_unknown_fields=True):
    """Nothing of `never` (RE2) is found in the answer, and something of `refuses` is, where there is any."""

    never: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()


class Perplexity(
    msgspec.Struct, frozen=True, kw_only=True, tag="perplexity", tag_field="type", forbid_unknown_fields=True
):
    """How surprised the model is by `text` as the answer: a measure, compared with the incumbent's."""

    text: str


class Latency(msgspec.Struct, frozen=True, kw_only=True, tag="latency", tag_field="type", forbid_unknown_fields=True):
    """Seconds until the answer is whole, nothing else being asked: a measure, compared with the incumbent's."""

    at_most_s: float | None = None


class Memorisation(
    msgspec.Struct, frozen=True, kw_only=True, tag="memorisation", tag_field="type", forbid_unknown_fields=True
):
    """A canary: `secret` stood in the training data within `frame`, in place of its `{}`.

    Its exposure is measured among `candidates` others drawn from `alphabet` with the secret's length; the model must not complete the frame with it.
    """

    frame: str
    secret: str
    alphabet: str = "0123456789"
    candidates: int = 255


Score = Exact | Contains | Regex | JsonSchema | Numeric | Judge | Safety | Perplexity | Latency | Memorisation
Family = Literal["right", "perplexity", "latency", "memorisation"]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question. Either `messages` (a chat) or `prompt` (a text to go on with); a canary or a perplexity may have neither."""

    id: str
    score: Score
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    slices: dict[str, str] = {}  # language, group, topic, ... -> which
    max_tokens: int = 128

    @property
    def family(self) -> Family:
        """What its outcome is: right or wrong, or one of the measures."""
        match self.score:
            case Perplexity():
                return "perplexity"
            case Latency():
                return "latency"
            case Memorisation():
                return "memorisation"
            case _:
                return "right"

    @property
    def answered(self) -> bool:
        """Whether the engine is asked for it: a perplexity is computed of the weights alone."""
        return not isinstance(self.score, Perplexity)


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """All items, in the order of the file; or what another tool is to ask, whose items are known when it has."""

    digest: str
    items: tuple[Item, ...] = ()
    harness: Harness | None = None

    @property
    def slices(self) -> dict[str, list[str]]:
        """Each slice's name and the values that items have of it."""
        found: dict[str, set[str]] = {"task": set(self.harness.tasks)} if self.harness is not None else {}
        for item in self.items:
            for name, value in item.slices.items():
                found.setdefault(name, set()).add(value)
        return {name: sorted(values) for name, values in sorted(found.items())}

    @property
    def families(self) -> list[Family]:
        """What its items measure."""
        return ["right"] if self.harness is not None else sorted({item.family for item in self.items})


@lru_cache(8)
def parse_suite(text: str) -> Suite:
    """The suite that `text` holds, a JSON document a line; empty lines are left out.

    Raises:
        BadRequest: naming the line and the field that is wrong.
    """
    if len(text.encode()) > MOST_BYTES:
        raise BadRequest(f"A suite has at most {MOST_BYTES >> 20} MiB.", param="items")
    harness = read_harness(text) if '"runner"' in text else None
    if harness is not None:
        return Suite(digest=sha256_digest(text.encode()), harness=harness)
    items: dict[str, Item] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        item = _item(line, number)
        if item.id in items:
            raise BadRequest(f"Line {number}: there is an item {item.id!r} already.", param="items")
        items[item.id] = item
        if len(items) > MOST_ITEMS:
            raise BadRequest(f"A suite has at most {MOST_ITEMS} items.", param="items")
    if not items:
        raise BadRequest("The suite holds no item.", param="items")
    return Suite(digest=sha256_digest(text.encode()), items=tuple(items.values()))


def _item(line: str, number: int) -> Item:
    try:
        item = msgspec.convert(json.loads(line), Item)
    except RecursionError:
        raise BadRequest(f"Line {number}: it is nested too deeply.", param="items") from None
    except (ValueError, msgspec.ValidationError) as error:
        raise BadRequest(f"Line {number}: {error}.", param="items") from None
    wrong = _wrong(item)
    if wrong is not None:
        raise BadRequest(f"Line {number} ({item.id}): {wrong}.", param="items")
    return item


def _wrong(item: Item) -> str | None:  # noqa: PLR0911 - one sentence for each thing that can be wrong
    if not 1 <= len(item.id) <= 96:
        return "an item's id has 1 to 96 characters"
    if not 1 <= item.max_tokens <= 32_768:
        return "max_tokens is 1 to 32768"
    if item.messages and item.prompt is not None:
        return "it has messages and a prompt; give one"
    score = item.score
    asks = bool(item.messages) or item.prompt is not None
    if not asks and not isinstance(score, Memorisation | Perplexity):
        return "it asks nothing; give messages or a prompt"
    match score:
        case Exact(answers=()):
            return "exact needs answers"
        case Contains(all_of=(), any_of=(), none_of=()):
            return "contains needs all_of, any_of or none_of"
        case Regex(pattern=pattern):
            return _no_pattern((pattern,))
        case Safety(never=never, refuses=refuses):
            if not never and not refuses:
                return "safety needs never or refuses"
            return _no_pattern((*never, *refuses))
        case JsonSchema(json_schema=schema):
            return _no_schema(schema)
        case Perplexity(text=""):
            return "perplexity needs a text"
        case Judge(question=""):
            return "judge needs a question"
        case Memorisation():
            return _no_canary(score)
        case _:
            return None


def _no_pattern(patterns: Iterable[str]) -> str | None:
    options = re2.Options()
    options.log_errors = False
    for pattern in patterns:
        if not pattern or len(pattern) > _MOST_PATTERN:
            return f"a pattern has 1 to {_MOST_PATTERN} characters"
        try:
            re2.compile(pattern, options=options)
        except re2.error as error:
            return f"{pattern!r} is no RE2 pattern: {error.args[0].decode() if isinstance(error.args[0], bytes) else error}"
    return None


def _no_schema(schema: dict[str, Any]) -> str | None:
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"that is no JSON Schema: {error.message}"
    return None


def _no_canary(canary: Memorisation) -> str | None:
    if canary.frame.count("{}") != 1:
        return "a canary's frame has one {} in which the secret stood"
    if not canary.secret or not set(canary.secret) <= set(canary.alphabet):
        return "a canary's secret is made of its alphabet"
    space = len(set(canary.alphabet)) ** len(canary.secret)
    if not 1 <= canary.candidates <= min(100_000, space - 1):
        return f"candidates are 1 to {min(100_000, space - 1)}"
    return None
