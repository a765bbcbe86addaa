"""What differs between two versions, and which semantic version should follow: pure rules over what was measured.

One principle: major if what callers rely on breaks, minor if answers change, patch if they do not. `RULES` has the rules in order of their
weight; `docs/versions.md` shows the same table.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from penstock.registry.schemes import Bump

_SAME_ANSWERS = 1e-6  # relative change of all weights together below which rounding of the arithmetic itself is larger


class TensorChange(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor that is not the same in both.

    Attributes:
        relative: norm of the difference over the norm of the first (Frobenius); None where the two cannot be subtracted.
        cosine: of the two as vectors; likewise.
    """

    name: str
    change: Literal["added", "removed", "shape", "dtype", "values"]
    shape: tuple[int, ...] = ()
    new_shape: tuple[int, ...] = ()
    dtype: str = ""
    new_dtype: str = ""
    relative: float | None = None
    cosine: float | None = None


class Tensors(msgspec.Struct, frozen=True, kw_only=True):
    """The weights of both: how many tensors are the same byte for byte, and those that are not.

    `relative` is of all tensors that could be subtracted, as one vector; None if there is none.
    """

    same: int = 0
    changed: tuple[TensorChange, ...] = ()
    relative: float | None = None
    cosine: float | None = None


class TokenizerChange(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens and merges: counts, and the first of each by name."""

    added: int = 0
    removed: int = 0
    moved: int = 0  # the same text under another id
    merges_added: int = 0
    merges_removed: int = 0
    merges_reordered: bool = False
    settings: tuple[str, ...] = ()  # other parts of the tokenizer that differ, by path
    examples: dict[str, tuple[str, ...]] = {}

    @property
    def any(self) -> bool:
        """Whether anything differs."""
        return bool(
            self.added
            or self.removed
            or self.moved
            or self.merges_added
            or self.merges_removed
            or self.merges_reordered
            or self.settings
        )


class MetricChange(msgspec.Struct, frozen=True, kw_only=True):
    """One metric in both; `clear` says that the two intervals do not overlap, None that there are none."""

    name: str
    before: float | None
    after: float | None
    better: bool | None = None  # None: equal, or nobody said which way is better
    clear: bool | None = None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    `config`, `metadata` and `processing` are paths with both values; `template` and `card` are unified diffs by line; `files` are paths.
    """

    tensors: Tensors = Tensors()
    tokenizer: TokenizerChange = TokenizerChange()
    template: tuple[str, ...] = ()
    config: dict[str, tuple[Any, Any]] = {}
    generation: dict[str, tuple[Any, Any]] = {}
    metadata: dict[str, tuple[Any, Any]] = {}
    metrics: tuple[MetricChange, ...] = ()
    processing: dict[str, tuple[Any, Any]] = {}
    card: tuple[str, ...] = ()
    files_added: tuple[str, ...] = ()
    files_removed: tuple[str, ...] = ()
    files_changed: tuple[str, ...] = ()


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """The bump, and why: each reason names its rule."""

    bump: Bump | None  # None: nothing differs
    reasons: tuple[str, ...]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule: `finds` gives what it found as the end of a sentence, or None."""

    name: str
    bump: Bump
    when: str
    finds: Callable[[Difference], str | None]


def _shapes(d: Difference) -> str | None:
    found = [t for t in d.tensors.changed if t.change in {"added", "removed", "shape"}]
    return _some([t.name for t in found], "tensors were added, removed or have another shape") if found else None


def _vocabulary(d: Difference) -> str | None:
    count = d.tokenizer.removed + d.tokenizer.moved
    return f"{count} tokens are gone or have another id" if count else None


def _context(d: Difference) -> str | None:
    for name in ("max_position_embeddings", "n_positions", "seq_length"):
        if name in d.config:
            before, after = d.config[name]
            if isinstance(before, int) and isinstance(after, int) and after < before:
                return f"the context shrinks from {before} to {after} tokens"
    return None


def _template_gone(d: Difference) -> str | None:
    removed = any(line.startswith("-") and not line.startswith("---") for line in d.template)
    added = any(line.startswith("+") and not line.startswith("+++") for line in d.template)
    return "there is no chat template any more, so that it cannot chat" if removed and not added else None


def _output(d: Difference) -> str | None:
    found = sorted(path for path in d.processing if path.startswith(("output", "stream")))
    return _some(found, "steps on answers differ") if found else None


def _licence(d: Difference) -> str | None:
    if "licence" not in d.metadata:
        return None
    before, after = d.metadata["licence"]
    return f"the licence is {after} and was {before}" if before else None


def _weights(d: Difference) -> str | None:
    changed = [t for t in d.tensors.changed if t.change in {"values", "dtype"}]
    moved = d.tensors.relative
    if not changed or (moved is not None and moved <= _SAME_ANSWERS):
        return None
    how = f", by {moved:.2g} of their norm" if moved is not None else ""
    return f"the values of {len(changed)} tensors differ{how}"


def _tokens(d: Difference) -> str | None:
    t = d.tokenizer
    if not (t.added or t.merges_added or t.merges_removed or t.merges_reordered or t.settings):
        return None
    return f"the tokenizer reads texts otherwise: {t.added} tokens and {t.merges_added} merges more, {t.merges_removed} merges fewer"


def _template(d: Difference) -> str | None:
    return "the chat template differs" if d.template else None


def _input(d: Difference) -> str | None:
    found = sorted(path for path in d.processing if path.startswith("input"))
    return _some(found, "steps on requests differ") if found else None


def _configured(d: Difference) -> str | None:
    found = sorted({*d.config, *d.generation})
    return _some(found, "settings of the model differ") if found else None


def _worse(d: Difference) -> str | None:
    found = [m.name for m in d.metrics if m.better is False and m.clear]
    return _some(found, "metrics are clearly worse") if found else None


def _rounding(d: Difference) -> str | None:
    changed = [t for t in d.tensors.changed if t.change in {"values", "dtype"}]
    return f"{len(changed)} tensors differ by no more than rounding" if changed else None


def _told(d: Difference) -> str | None:
    parts = [
        name
        for name, there in (
            ("the card", d.card),
            ("metadata", d.metadata),
            ("metrics", d.metrics),
            ("files", d.files_added or d.files_removed or d.files_changed),
        )
        if there
    ]
    return f"{' and '.join(parts)} differ" if parts else None


RULES: tuple[Rule, ...] = (
    Rule(name="architecture", bump="major", when="a tensor is added, removed or has another shape", finds=_shapes),
    Rule(name="vocabulary", bump="major", when="a token is gone or has another id", finds=_vocabulary),
    Rule(name="context", bump="major", when="the context is shorter", finds=_context),
    Rule(name="no template", bump="major", when="there is no chat template any more", finds=_template_gone),
    Rule(name="output", bump="major", when="the steps on answers differ: their form may", finds=_output),
    Rule(name="licence", bump="major", when="the licence differs", finds=_licence),
    Rule(name="weights", bump="minor", when="weights differ by more than rounding", finds=_weights),
    Rule(name="tokenizer", bump="minor", when="tokens or merges are added, or texts are read otherwise", finds=_tokens),
    Rule(name="template", bump="minor", when="the chat template differs", finds=_template),
    Rule(name="input", bump="minor", when="the steps on requests differ", finds=_input),
    Rule(
        name="configuration",
        bump="minor",
        when="config.json or generation_config.json differ",
        finds=_configured,
    ),
    Rule(name="worse", bump="minor", when="a metric is worse, its interval apart from the former one", finds=_worse),
    Rule(
        name="rounding",
        bump="patch",
        when="all weights together differ by at most 1e-6 of their norm",
        finds=_rounding,
    ),
    Rule(name="told", bump="patch", when="card, metadata, metrics or other files differ", finds=_told),
)
_ORDER: Mapping[Bump, int] = {"major": 0, "minor": 1, "patch": 2}


def suggest(difference: Difference) -> Suggestion:
    """Which part of a semantic version should grow from the first to the second; reasons of smaller weight follow the decisive ones."""
    found = [(rule, told) for rule in RULES if (told := rule.finds(difference)) is not None]
    if any(rule.name in {"architecture", "vocabulary", "weights"} for rule, _ in found):
        found = [(rule, told) for rule, told in found if rule.name != "rounding"]
    if not found:
        return Suggestion(bump=None, reasons=("Nothing differs.",))
    found.sort(key=lambda one: _ORDER[one[0].bump])
    return Suggestion(
        bump=found[0][0].bump, reasons=tuple(f"{rule.bump} ({rule.name}): {told}." for rule, told in found)
    )


def differences(before: Any, after: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """The paths at which two JSON values differ, with both sides (None: it is not there); a list counts as one value."""
    if isinstance(before, dict) and isinstance(after, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for name in sorted({*before, *after}):
            found |= differences(before.get(name), after.get(name), f"{path}.{name}" if path else str(name))
        return found
    return {} if before == after else {path: (before, after)}


def compare_tokenizers(before: Mapping[str, Any], after: Mapping[str, Any], *, shown: int = 10) -> TokenizerChange:
    """What differs between two `tokenizer.json` (Hugging Face tokenizers' format)."""
    old, new = _vocabulary_of(before), _vocabulary_of(after)
    added = sorted(new.keys() - old.keys(), key=lambda token: new[token])
    removed = sorted(old.keys() - new.keys(), key=lambda token: old[token])
    moved = sorted(token for token in old.keys() & new.keys() if old[token] != new[token])
    merges, later = _merges(before), _merges(after)
    gone, come = set(merges) - set(later), set(later) - set(merges)
    common, kept = [m for m in merges if m not in gone], [m for m in later if m not in come]
    rest = differences(_without_tables(before), _without_tables(after))
    examples = {
        "added": tuple(added[:shown]),
        "removed": tuple(removed[:shown]),
        "moved": tuple(moved[:shown]),
        "merges_added": tuple(m for m in later if m in come)[:shown],
        "merges_removed": tuple(m for m in merges if m in gone)[:shown],
    }
    return TokenizerChange(
        added=len(added),
        removed=len(removed),
        moved=len(moved),
        merges_added=len(come),
        merges_removed=len(gone),
        merges_reordered=common != kept,
        settings=tuple(rest),
        examples={name: found for name, found in examples.items() if found},
    )


def _vocabulary_of(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    if isinstance(vocabulary, list):  # Unigram: [text, score] by place
        vocabulary = {str(entry[0]): place for place, entry in enumerate(vocabulary)}
    extra = {str(one.get("content")): one.get("id") for one in tokenizer.get("added_tokens") or ()}
    return {**vocabulary, **extra}


def _merges(tokenizer: Mapping[str, Any]) -> list[str]:
    merges = (tokenizer.get("model") or {}).get("merges") or []
    return [" ".join(one) if isinstance(one, list) else str(one) for one in merges]


def _without_tables(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    model = {k: v for k, v in (tokenizer.get("model") or {}).items() if k not in {"vocab", "merges"}}
    rest = {k: v for k, v in tokenizer.items() if k not in {"model", "added_tokens"}}
    return {**rest, "model": model}


def compare_metrics(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[MetricChange, ...]:
    """The metrics that differ. Each is a number or a mapping with `value`, `lower`, `upper` and `higher_is_better`."""
    found = []
    for name in sorted({*before, *after}):
        old, new = _measured(before.get(name)), _measured(after.get(name))
        if old.get("value") == new.get("value"):
            continue
        a, b = old.get("value"), new.get("value")
        direction = new.get("higher_is_better", old.get("higher_is_better"))
        better = None if a is None or b is None or direction is None else (b > a) == direction
        found.append(MetricChange(name=name, before=a, after=b, better=better, clear=_apart(old, new)))
    return tuple(found)


def _apart(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool | None:
    ends: list[float] = []
    for one in (old, new):
        if one.get("lower") is None or one.get("upper") is None:
            return None
        ends += (one["lower"], one["upper"])
    return ends[2] > ends[1] or ends[3] < ends[0]


def _measured(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    return {"value": value} if isinstance(value, int | float) else {}


def _some(names: list[str], what: str) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{what}: {', '.join(names[:3])}{more}"
