"""Whole turns go, the oldest first; what must stay stays."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.snapshot import Trim
from penstock.routing.trim import Said, trim

ROLES = st.sampled_from(("system", "developer", "user", "assistant", "tool"))


def chat(text: str) -> list[Said]:
    """`s`, `u`, `a`, `t` for the roles, 10 tokens each."""
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [Said(roles[letter], 10) for letter in text]


def left(text: str, budget: int, **policy: int) -> str:
    trimmed = trim(chat(text), Trim(budget_tokens=budget, **policy))  # type: ignore[arg-type]
    return "".join(text[at] for at in trimmed.kept)


def test_the_oldest_turns_go_and_the_system_stays() -> None:
    assert left("suauau", 60) == "suauau"
    assert left("suauau", 59) == "suau"
    assert left("suauau", 39) == "su"
    assert left("suauau", 1) == "su"
    assert left("suauau", 1, keep_last=2) == "suau"


def test_tool_calls_stay_with_their_results() -> None:
    assert left("uatauatau", 60) == "uatau"
    assert left("uatauatau", 49) == "u"


def test_users_who_speak_twice_are_one_turn() -> None:
    assert left("uauua", 49) == "uua"


def test_an_opening_line_goes_with_the_first_turn() -> None:
    assert left("saua" + "u", 40) == "su"


def test_the_system_may_be_trimmed_too() -> None:
    assert left("suau", 39, keep_system=False) == "u"


@given(st.lists(st.builds(Said, ROLES, st.integers(0, 50)), max_size=30), st.integers(1, 400), st.integers(1, 4))
def test_what_is_left(messages: list[Said], budget: int, keep_last: int) -> None:
    policy = Trim(budget_tokens=budget, keep_last=keep_last)
    got = trim(messages, policy)
    kept = [messages[at] for at in got.kept]
    total = sum(m.tokens for m in messages)
    assert list(got.kept) == sorted(set(got.kept))
    assert sum(m.tokens for m in kept) == total - got.tokens
    assert (got.turns == 0) == (len(kept) == len(messages))
    assert [m for m in kept if m.role in {"system", "developer"}] == [
        m for m in messages if m.role in {"system", "developer"}
    ]
    users = [m for m in messages if m.role == "user"]
    assert not users or kept[-1] == messages[-1]
    talk = [at for at in got.kept if messages[at].role not in {"system", "developer"}]
    assert talk == [at for at in range(len(messages)) if messages[at].role not in {"system", "developer"}][-len(talk) :]
    assert got.turns == 0 or messages[talk[0]].role == "user"
    again = trim(kept, policy)
    assert again.turns == 0
    if total <= budget:
        assert got.turns == 0
