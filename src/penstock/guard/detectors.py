"""The built-in detectors: what each looks for, as RE2 patterns and the check that follows. `docs/reference/guard-rules.md` lists them."""

import msgspec

from penstock.core.snapshot import Rule
from penstock.guard.validators import Validator, iban, luhn, phone, word


class Detector(msgspec.Struct, frozen=True, kw_only=True):
    """One pattern and its check.

    `looks_ahead`: the check reads the character after a match. `ending`: what a tail looks like that could still become a match; derived
    from the pattern where it is None.
    """

    pattern: str
    validate: Validator | None = None
    looks_ahead: bool = False
    ending: str | None = None


_CARD = (
    r"\b(?:[2-6]\d{3}[ -]?\d{4}[ -]?\d{4}[ -]?\d{1,4}(?:[ -]?\d{1,3})?"  # 4-4-4-1 to 4-4-4-4-3
    r"|3\d{3}[ -]?\d{6}[ -]?\d{4,5})\b"  # 4-6-4 and 4-6-5
)
_LETTER = r"A-Za-z0-9\x{C0}-\x{24F}"  # ASCII and Latin letters: all of Unicode's would make a thousandfold automaton
_EMAIL = rf"[{_LETTER}._%+'-]+@(?:[{_LETTER}](?:[{_LETTER}-]*[{_LETTER}])?\.)+[A-Za-z]{{2,24}}"
_PHONE = (
    r"(?:\+|\b00)[1-9]\d{0,2}[ ./-]?(?:\(\d{1,5}\)[ ./-]?)?\d{1,5}(?:[ ./-]?\d{1,5}){1,5}",  # international
    r"\(\d{2,5}\)[ ./-]?\d{2,5}(?:[ ./-]?\d{2,5}){1,3}",  # the area code in parentheses
    r"\b0\d{1,4}[ ./-]\d{2,5}(?:[ ./-]?\d{2,5}){0,3}",  # a trunk prefix and at least one separator
    r"\b[2-9]\d{2}[ .-]\d{3}[ .-]\d{4}",  # North America
)
_SECRET = (
    r"\b(?:pk|sk|rk)-[A-Za-z0-9_-]{20,}",  # ours; OpenAI, Anthropic and others
    r"\b(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
    r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",  # AWS key ids
    r"\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}|\bglpat-[A-Za-z0-9_-]{20,}",
    r"\bxox[abeprs]-[A-Za-z0-9-]{10,}",  # Slack
    r"\bAIza[A-Za-z0-9_-]{35}",  # Google
    r"\bhf_[A-Za-z0-9]{30,}|\bnpm_[A-Za-z0-9]{36}|\bpypi-[A-Za-z0-9_-]{50,}",
    r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}",  # JSON Web Tokens
    r"-----BEGIN (?:[A-Z]{1,12} ){0,3}PRIVATE KEY-----[A-Za-z0-9+/=\s]*(?:-----END (?:[A-Z]{1,12} ){0,3}PRIVATE KEY-----)?",
)

_BUILT_IN: dict[str, tuple[Detector, ...]] = {
    "payment_card": (Detector(pattern=_CARD, validate=luhn),),
    "email": (Detector(pattern=_EMAIL),),
    "phone": tuple(Detector(pattern=p, validate=phone, looks_ahead=True) for p in _PHONE),
    "iban": (Detector(pattern=r"\b(?i:[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30})", validate=iban, looks_ahead=True),),
    "secret": tuple(Detector(pattern=p) for p in _SECRET),
    "number": (Detector(pattern=r"\b\d(?:[ -]?\d){5,31}\b"),),
}


def detectors(rule: Rule) -> tuple[Detector, ...]:
    """What `rule` looks for."""
    if rule.detect == "words":
        return tuple(
            Detector(
                pattern="(?i)(?:" + "|".join("".join(_tokens(text)) for text in layer) + ")",
                validate=word,
                looks_ahead=True,
                ending=rf"(?i){_beginnings([_tokens(text) for text in layer])}\z",
            )
            for layer in _layers(rule.words)
        )
    if rule.detect == "pattern":
        return tuple(Detector(pattern=p) for p in rule.patterns)
    return _BUILT_IN[rule.detect]


def label(rule: Rule) -> str:
    """What a masked match is replaced with: `[payment_card]`, or `[name of the rule]` for words and patterns."""
    return f"[{rule.name if rule.detect in ('words', 'pattern') else rule.detect}]"


def _layers(words: tuple[str, ...]) -> list[list[str]]:
    """The words as patterns, spread so that none begins another of its layer: else the shorter would hide behind the longer."""
    layers: list[list[str]] = []
    before: list[str] = []
    for text in sorted({" ".join(w.split()).lower() for w in words} - {""}):
        while before and not text.startswith(before[-1]):
            before.pop()
        before.append(text)
        while len(layers) < len(before):
            layers.append([])
        layers[len(before) - 1].append(text)
    return layers


def _tokens(text: str) -> list[str]:
    """`text` as a pattern, character by character; a space stands for up to four white spaces."""
    return [r"\s{1,4}" if c == " " else c if c.isalnum() or ord(c) > 127 else f"\\x{{{ord(c):x}}}" for c in text]


def _beginnings(words: list[list[str]]) -> str:
    """A pattern for all beginnings of `words`, which are sorted: each shared one stands in it once, as in a trie."""
    pieces = ["(?:"]
    before: list[str] = []
    for tokens in words:
        shared = 0
        while shared < min(len(before), len(tokens)) and before[shared] == tokens[shared]:
            shared += 1
        pieces.append(")" * (len(before) - shared))
        pieces += [f"|{token}(?:" for token in tokens[shared:]]
        before = tokens
    pieces.append(")" * (len(before) + 1))
    return "".join(pieces)
