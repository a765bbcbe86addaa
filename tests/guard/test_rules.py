import time

import pytest

from penstock.core.errors import BadRequest
from penstock.core.exchange import Finding
from penstock.core.snapshot import Policy, Rule
from penstock.guard.policies import Guard, compile_policy


def guard(*rules: Rule) -> Guard:
    compiled = compile_policy(Policy(name="p", rules=rules))
    assert compiled is not None
    return compiled


def masked(detect: str, text: str) -> str:
    return guard(Rule(name="r", detect=detect, do="mask")).scan_input(text).text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "number",
    [  # test numbers published by the card schemes
        "4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111", "5555555555554444", "378282246310005",
        "3782 822463 10005", "6011111111111117", "3530111333300000", "4222222222222", "2223003122003222",
    ],
)  # fmt: skip
def test_payment_cards(number: str) -> None:
    assert masked("payment_card", f"card {number}.") == "card [payment_card]."
    wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
    assert masked("payment_card", f"card {wrong}.") == f"card {wrong}."
    assert masked("payment_card", f"1{number}9") != "[payment_card]"


@pytest.mark.parametrize("after", [" 123", " 12/27", " 01 28", "-99", " 123 12-27", ", 123"])
@pytest.mark.parametrize("number", ["4111 1111 1111 1111", "4111111111111111", "378282246310005", "3782 822463 10005"])
def test_what_stands_after_a_card_number_does_not_hide_it(number: str, after: str) -> None:
    assert masked("payment_card", f"card {number}{after}.") == f"card [payment_card]{after}."


def test_long_numbers() -> None:
    text = "Orders 4471902 and 12 34-56 of 2024, house 12, 99887 km"
    assert masked("number", text) == "Orders [number] and [number] of 2024, house 12, 99887 km"


def test_words_are_no_account() -> None:
    text = (
        "You can follow order CH622262 under My orders, Track parcel."  # 21 letters and digits with the right remainder
    )
    assert masked("iban", text) == text


def test_order_numbers_are_no_cards_or_phones() -> None:
    text = "Orders 4471902, 88120, AB-55120 and 12345678901234567890123 of 2024-05-01 10:15, 3.50 EUR, version 1.10.2."
    for detect in ("payment_card", "phone", "iban", "secret", "email"):
        assert masked(detect, text) == text


@pytest.mark.parametrize(
    "address", ["ann@example.com", "a.b+c@mail.example.co.uk", "o'neil@x-y.org", "josé@exämple.de", "1@2.io"]
)
def test_emails(address: str) -> None:
    assert masked("email", f"Write to {address}, please.") == "Write to [email], please."
    assert masked("email", f"<{address}>") == "<[email]>"


@pytest.mark.parametrize("text", ["user@localhost", "@handle", "a@b", "x @ y.com", "me@.com"])
def test_what_is_no_email(text: str) -> None:
    assert masked("email", text) == text


@pytest.mark.parametrize(
    "number",
    ["+49 170 1234567", "+1 (415) 555-2671", "+442071838750", "0044 20 7183 8750", "(415) 555-2671", "415-555-2671",
     "030/1234567", "0170 1234567", "+33 1 23 45 67 89"],
)  # fmt: skip
def test_phones(number: str) -> None:
    assert masked("phone", f"Call {number} now") == "Call [phone] now"


@pytest.mark.parametrize(
    "number",
    [  # examples of the IBAN registry
        "DE89370400440532013000", "DE89 3704 0044 0532 0130 00", "GB29 NWBK 6016 1331 9268 19", "FR1420041010050500013M02606",
        "NO9386011117947", "MT84MALT011000012345MTLCAST001S", "de89370400440532013000",
    ],
)  # fmt: skip
def test_ibans(number: str) -> None:
    assert masked("iban", f"to {number} today") == "to [iban] today"
    assert masked("iban", f"to {number[:-1]}{'1' if number[-1] != '1' else '2'} today").startswith(f"to {number[:-1]}")


@pytest.mark.parametrize(
    "secret",
    ["pk-" + "aB3_" * 10, "sk-proj-" + "x1" * 20, "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1" * 18, "xoxb-123456789012-abcdef",
     "AIza" + "b" * 35, "hf_" + "c" * 34, "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSMeKKF2QT4fw",
     "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----"],
)  # fmt: skip
def test_secrets(secret: str) -> None:
    assert masked("secret", f"key: {secret} ok") == "key: [secret] ok"


def test_words_respect_case_borders_and_scripts() -> None:
    found = guard(Rule(name="w", words=("Foo", "foo bar", "grüße", "密码"), do="mask")).scan_input
    assert found("foo FOO fOo").text == "[w] [w] [w]"
    assert found("food afoo foo_ _foo éfoo fooé foo2").text == "food afoo foo_ _foo éfoo fooé foo2"
    assert found("foo  bar, foo\nbarn!").text == "[w], [w]\nbarn!"
    assert found("Viele GRÜSSE GRÜẞE Grüße").text == "Viele GRÜSSE GRÜẞE [w]" or found("GRÜẞE").text == "[w]"
    assert found("我的密码是").text == "我的[w]是", "scripts without spaces have no word borders"
    assert found("foo bar").findings == (Finding("w", "mask", "input", 1),)


def test_special_characters_in_words_are_literal() -> None:
    found = guard(Rule(name="w", words=("c++", "a.b", "$5 (x)", "-dash-"), do="mask")).scan_input
    assert found("c++ ccc a.b axb $5 (x) -dash-").text == "[w] ccc [w] axb [w] [w]"


def test_block_mask_and_flag_apply_where_they_say() -> None:
    rules = guard(
        Rule(name="in", words=("alpha",), on=("input",)),
        Rule(name="out", words=("beta",), on=("output",), do="mask"),
        Rule(name="see", words=("gamma",), do="flag"),
    )
    assert rules.scan_input("x alpha").blocked == "in"
    assert rules.scan_output("x alpha").blocked is None
    assert rules.scan_output("beta gamma gamma").text == "[out] gamma gamma"
    assert rules.scan_output("beta gamma gamma").findings == (
        Finding("out", "mask", "output", 1),
        Finding("see", "flag", "output", 2),
    )
    assert rules.scan_input("beta").findings == ()
    only_input = guard(Rule(name="in", words=("alpha",), on=("input",)))
    assert only_input.stream() is None
    assert not only_input.has_output
    assert compile_policy(Policy(name="none")) is None


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule(name="broken", detect="pattern", patterns=("ok", "a(")), "'broken'.*missing"),
        (Rule(name="behind", detect="pattern", patterns=("(?<=a)b",)), "'behind'"),
        (Rule(name="empty", detect="pattern", patterns=("a*",)), "'empty'.*empty text"),
        (Rule(name="nothing", detect="pattern"), "'nothing' has no patterns"),
        (Rule(name="silent", words=(" ",)), "'silent' has no words"),
    ],
)
def test_a_bad_rule_is_named(rule: Rule, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as refused:
        compile_policy(Policy(name="p", rules=(rule,)))
    assert refused.value.param is not None
    assert rule.name in refused.value.param


def test_thousands_of_words_still_match() -> None:
    words = tuple(f"forbidden{n}word" for n in range(3000))
    found = guard(Rule(name="w", words=words, do="mask"))
    assert found.scan_input("a Forbidden2999word b").text == "a [w] b"
    scanner = found.stream()
    assert scanner is not None
    assert "".join(scanner.feed(c).text for c in "a forbidden7word b") + scanner.finish().text == "a [w] b"


def test_a_hostile_text_costs_linear_time() -> None:
    found = guard(*(Rule(name=d, detect=d, do="mask") for d in ("payment_card", "email", "phone", "iban", "secret")))
    began = time.perf_counter()
    for text in (
        "4" * 50_000,
        "4111 " * 10_000,
        "a" * 50_000 + "@",
        "1 " * 25_000,
        "DE89 " * 10_000,
        "+1 " * 16_000,
        "0044 1 " * 7000,
    ):
        found.scan_input(text)
    assert time.perf_counter() - began < 20


def test_the_digest_changes_with_the_rules() -> None:
    one = guard(Rule(name="a", words=("x",)))
    assert one.rules_digest == guard(Rule(name="a", words=("x",))).rules_digest
    assert one.rules_digest != guard(Rule(name="a", words=("y",))).rules_digest
