"""Chains of blocks: what begins alike has equal hashes as far as it is alike."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.routing.affinity import prefix_chain

FIELD = b'"messages"'


def body(text: bytes, before: bytes = b"{") -> bytes:
    return before + FIELD + b":" + text


@given(st.binary(max_size=3000), st.binary(max_size=3000), st.binary(max_size=3000))
def test_chains_agree_exactly_as_far_as_the_bytes_do(common: bytes, one: bytes, other: bytes) -> None:
    first, second = prefix_chain(body(common + one), FIELD, 1), prefix_chain(body(common + other), FIELD, 1)
    same = 0
    for left, right in zip(common + one, common + other, strict=False):
        if left != right:
            break
        same += 1
    same += len(FIELD) + 1
    blocks = sum(1 for end in (256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144) if end <= same)
    shared = min(blocks, len(first), len(second))
    assert first[:shared] == second[:shared]
    if common + one != common + other:
        assert first[shared : shared + 1] == [] or first[shared : shared + 1] != second[shared : shared + 1]


def test_what_stands_before_the_prompt_does_not_count() -> None:
    text = b"x" * 1000
    plain = prefix_chain(body(text), FIELD, 1)
    assert plain == prefix_chain(body(text, b'{"model":"other","user":"somebody",'), FIELD, 1)
    assert len(plain) == 3


def test_of_whom_it_is_counts() -> None:
    text = body(b"x" * 5000)
    assert set(prefix_chain(text, FIELD, 1)).isdisjoint(prefix_chain(text, FIELD, 2))


def test_long_prompts_have_few_blocks_and_short_ones_none() -> None:
    assert len(prefix_chain(body(b"x" * 1_000_000), FIELD, 1)) == 16
    assert prefix_chain(body(b"x" * 200), FIELD, 1) == []
    assert prefix_chain(b'{"prompt":"' + b"x" * 900, FIELD, 1) == []
