import pytest

from penstock.console.session import LIFETIME_S, Sealer, Session
from penstock.core.errors import Forbidden

SECRET = b"0123456789abcdef"


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def test_the_cookie_hides_the_key_and_opens_again() -> None:
    sealer = Sealer(SECRET, Clock())
    cookie = sealer.seal(Session(csrf="t", key="psa-secret"))
    assert "psa-secret" not in cookie
    assert sealer.open(cookie) == Session(csrf="t", key="psa-secret")


def test_another_secret_does_not_open_it() -> None:
    cookie = Sealer(SECRET, Clock()).seal(Session(csrf="t", key="k"))
    assert Sealer(b"another secret of 16", Clock()).open(cookie) is None


@pytest.mark.parametrize("cookie", [None, "", "x", "é", "gAAAAA" + "A" * 100])
def test_what_is_no_cookie_of_ours_opens_nothing(cookie: str | None) -> None:
    assert Sealer(SECRET, Clock()).open(cookie) is None


def test_a_changed_cookie_does_not_open() -> None:
    sealer = Sealer(SECRET, Clock())
    cookie = sealer.seal(Session(csrf="t", key="k"))
    middle = len(cookie) // 2
    assert sealer.open(cookie[:middle] + ("A" if cookie[middle] != "A" else "B") + cookie[middle + 1 :]) is None


def test_it_runs_out() -> None:
    clock = Clock()
    sealer = Sealer(SECRET, clock)
    cookie = sealer.seal(Session(csrf="t", key="k"))
    clock.now += LIFETIME_S + 1
    assert sealer.open(cookie) is None


def test_two_sessions_have_two_tokens() -> None:
    sealer = Sealer(SECRET, Clock())
    one, other = sealer.fresh(), sealer.fresh()
    one.check(one.csrf)
    with pytest.raises(Forbidden):
        one.check(other.csrf)
    with pytest.raises(Forbidden):
        one.check("")


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Sealer(b"short", Clock())
