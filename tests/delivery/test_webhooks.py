"""How messages are signed (the specification's own example), sent again, given up; where none is sent; and who hears of what."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.delivery.events import EVENTS, Concerned, concerned, known_pattern, wants
from penstock.delivery.webhooks import (
    LONGEST_S,
    Outcome,
    after,
    is_allowed,
    parse_networks,
    parse_secret,
    refusal,
    signatures,
)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of standard-webhooks' reference libraries."""
    secret = parse_secret(SECRET)
    told = signatures([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert told == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signatures([secret, secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}') == (
        f"{told} {told}"
    )


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_c2hvcnQ=", SECRET.removeprefix("whsec_"), "whsec_not base64!"])
def test_what_is_no_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(BadRequest) as raised:
        parse_secret(text)
    assert "c2hvcnQ" not in raised.value.message
    assert len(parse_secret("whsec_" + base64.b64encode(bytes(64)).decode())) == 64


@given(attempts=st.integers(1, 200), draw=st.floats(0, 1, exclude_max=True), asked=st.floats(0, 1e6))
def test_pauses_grow_to_an_hour_and_the_first_attempt_bounds_them_all(attempts: int, draw: float, asked: float) -> None:
    outcome = Outcome(status=503, retry_after_s=asked)
    found = after(outcome, attempts=attempts, first_at=0.0, now=1000.0, draw=draw, give_up_s=1e9)
    assert found.state == "waiting"
    due = min(LONGEST_S, 2.0 ** min(attempts - 1, 30))
    assert max(due / 2, min(asked, LONGEST_S)) <= found.at - 1000.0 <= max(due, min(asked, LONGEST_S))
    assert after(outcome, attempts=attempts, first_at=0.0, now=1000.0, draw=draw, give_up_s=999.0).state == "dead"


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (200, "delivered"),
        (204, "delivered"),
        (301, "waiting"),
        (400, "waiting"),
        (410, "dead"),
        (500, "waiting"),
        (0, "waiting"),
    ],
)
def test_what_a_status_means(status: int, state: str) -> None:
    assert after(Outcome(status=status), attempts=1, first_at=0.0, now=0.0, draw=0.0, give_up_s=60.0).state == state


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
        "192.0.2.1", "255.255.255.255", "::", "::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "2002:7f00:1::", "2002:a9fe:a9fe::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2001:0:7f00:1::",
    ],
)  # fmt: skip
def test_nothing_is_sent_to_private_addresses_in_whatever_form(address: str) -> None:
    assert "no public address" in refusal(address, ())


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_sent_to(address: str) -> None:
    assert refusal(address, ()) == ""


def test_networks_are_let_in_by_setting() -> None:
    networks = parse_networks(("10.0.0.0/8", " ::1 "))
    assert refusal("10.1.2.3", networks) == refusal("::ffff:10.1.2.3", networks) == refusal("::1", networks) == ""
    assert refusal("127.0.0.1", networks)
    assert not is_allowed("8.8.8.8", networks)
    with pytest.raises(BadRequest, match=r"webhooks\.allow_networks"):
        parse_networks(("10.0.0.1/8",))


@pytest.mark.parametrize(
    ("action", "subject", "about"),
    [
        ("deployment.live", "production/bot", Concerned(model="bot", environment="production")),
        ("version.commit", "bot:v1.0.0", Concerned(model="bot", label="v1.0.0")),
        ("version.block", "dev/bot:v1.0.0", Concerned(model="bot", label="v1.0.0", environment="dev")),
        ("webhook.test", "hook", Concerned()),
    ],
)
def test_what_an_event_is_about(action: str, subject: str, about: Concerned) -> None:
    assert concerned(action, subject) == about


def test_patterns_name_events() -> None:
    assert all(known_pattern(name) for name in (*EVENTS, "*", "deployment.*", "pipeline.*"))
    assert not any(
        known_pattern(name) for name in ("", "deploy", "deployment", "depl*", "nothing.*", "*.live", "de*.live")
    )


def test_who_hears_of_what() -> None:
    def told(events: list[str], models: list[str] | None, action: str, model: str = "bot") -> bool:
        return wants(
            webhook="hook", events=events, models=models, action=action, subject=f"production/{model}", model=model
        )

    assert told(["*"], None, "deployment.live")
    assert told(["deployment.*"], ["bot"], "deployment.live")
    assert not told(["deployment.*"], ["other"], "deployment.live")
    assert not told(["canary.*", "deployment.fail"], None, "deployment.live")
    assert wants(webhook="hook", events=["canary.*"], models=["x"], action="webhook.test", subject="hook", model="")
    assert not wants(webhook="other", events=["*"], models=None, action="webhook.test", subject="hook", model="")
