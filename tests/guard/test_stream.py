import random

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.exchange import Finding
from penstock.core.snapshot import Policy, Rule
from penstock.guard.policies import Guard, compile_policy

CARD = "4111 1111 1111 1111"
PIECES = [
    "a", " ", ".", "-", "1", "4", "é", "中", "foo", "foob", "foo bar", "FOO", CARD, CARD[:12], "378282246310005",
    "ann@shop.example", "ann@", "@x.com", "+49 170 1234567", "0044", "DE89 3704 0044 0532 0130 00", "DE89", "GB82WEST12345698765432",
    "pk-abcdefghijklmnopqrstuvwx", "sk_live_0123456789abcdef", "-----BEGIN PRIVATE KEY-----", "AAAA", "ord-123", "ord-12", "x\n",
]  # fmt: skip


def rules(action_of_words: str, action_of_cards: str) -> tuple[Rule, ...]:
    return (
        Rule(name="cards", detect="payment_card", do=action_of_cards),  # type: ignore[arg-type]
        Rule(name="mail", detect="email", do="mask"),
        Rule(name="phones", detect="phone", do="mask"),
        Rule(name="iban", detect="iban", do="mask"),
        Rule(name="keys", detect="secret", do="mask"),
        Rule(name="words", words=("foo", "foo bar", "中"), do=action_of_words),  # type: ignore[arg-type]
        Rule(name="orders", detect="pattern", patterns=(r"\bord-\d{2,4}\b", "(?m)^1[14 ]*4$", "x.?$"), do="mask"),
    )


GUARDS = [
    guard
    for words in ("mask", "flag", "block")
    for cards in ("mask", "block")
    if (guard := compile_policy(Policy(name="p", rules=rules(words, cards)))) is not None
]


def streamed(guard: Guard, chunks: list[str]) -> tuple[str, dict[tuple[str, str], int], str | None]:
    scanner = guard.stream()
    assert scanner is not None
    text = ""
    counts: dict[tuple[str, str], int] = {}
    blocked = None
    for emission in [*(scanner.feed(chunk) for chunk in chunks), scanner.finish()]:
        text += emission.text
        for finding in emission.findings:
            counts[finding.rule, finding.action] = counts.get((finding.rule, finding.action), 0) + finding.count
        blocked = blocked or emission.blocked
    assert not scanner.holding or blocked
    return text, counts, blocked


def at_once(guard: Guard, text: str) -> tuple[str, dict[tuple[str, str], int], str | None]:
    screened = guard.scan_output(text)
    return screened.text, {(f.rule, f.action): f.count for f in screened.findings}, screened.blocked


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(GUARDS), st.lists(st.sampled_from(PIECES), max_size=12), st.randoms(use_true_random=False))
def test_any_chunking_gives_what_the_whole_text_gives(guard: Guard, pieces: list[str], draws: random.Random) -> None:
    text = "".join(pieces)
    cuts = sorted(draws.randint(0, len(text)) for _ in range(draws.randint(0, 8)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    expected = at_once(guard, text)
    assert streamed(guard, chunks) == expected
    assert streamed(guard, list(text)) == expected


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_text_at_all(text: str) -> None:
    assert streamed(GUARDS[0], list(text)) == at_once(GUARDS[0], text)


def test_ordinary_words_are_released_at_once_and_only_what_could_match_is_held() -> None:
    guard = compile_policy(Policy(name="p", rules=(Rule(name="cards", detect="payment_card", do="mask"),)))
    assert guard is not None
    scanner = guard.stream()
    assert scanner is not None
    assert [scanner.feed(t).text for t in ("Your", " card ", "41", "11 ", "is")] == [
        "Your",
        " card ",
        "",
        "",
        "4111 is",
    ]
    assert not scanner.holding
    assert [scanner.feed(t).text for t in (" 4111 1111", " 1111 1111", ".")] == [" ", "", "[payment_card]."]


def test_after_a_block_nothing_more_comes() -> None:
    guard = compile_policy(Policy(name="p", rules=(Rule(name="secret word", words=("xyzzy",)),)))
    assert guard is not None
    scanner = guard.stream()
    assert scanner is not None
    assert scanner.feed("say xyz").text == "say "
    assert scanner.feed("zy").text == ""
    emission = scanner.feed(" now")
    assert (emission.text, emission.blocked) == ("", "secret word")
    assert emission.findings == (Finding("secret word", "block", "output", 1),)
    assert scanner.feed("more").text == ""
    assert scanner.finish().text == ""


def test_what_is_held_is_bounded() -> None:
    guard = compile_policy(
        Policy(name="p", rules=(Rule(name="r", detect="pattern", patterns=("(?s)begin.*end",), do="mask"),))
    )
    assert guard is not None
    scanner = guard.stream()
    assert scanner is not None
    out = scanner.feed("begin").text
    for _ in range(60):
        out += scanner.feed("x" * 1000).text
    assert len(out) > 30_000
    assert len(out) + 20_000 > 60_000
