"""Members that are named twice are found, whichever way they are looked for."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.wire.decoding import DuplicateKeyError, check_members

_scalars = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text('ab":\\ \n{,', max_size=6))
_names = st.sampled_from(["model", "messages", "a", 'q":', "n", "é"])
_messages = st.lists(
    st.lists(st.tuples(st.sampled_from(["role", "content", "name"]), _scalars), max_size=4), min_size=0, max_size=3
)


def _write(pairs: list[tuple[str, str]], blanks: tuple[str, str, str]) -> str:
    """An object with its members as given, twice or not, with blanks where JSON has room for them."""
    before, after, comma = blanks
    return "{" + f"{comma},{comma}".join(f"{json.dumps(k)}{before}:{after}{v}" for k, v in pairs) + "}"


@given(
    st.lists(st.tuples(_names, _scalars), min_size=1, max_size=5),
    _messages,
    st.tuples(st.sampled_from(["", " ", "\n"]), st.sampled_from(["", " "]), st.sampled_from(["", " ", "\t"])),
    st.booleans(),
)
def test_as_a_strict_reader_says(
    scalars: list[tuple[str, Any]],
    messages: list[list[tuple[str, Any]]],
    blanks: tuple[str, str, str],
    ascii_only: bool,
) -> None:
    written = [_write([(k, json.dumps(v, ensure_ascii=ascii_only)) for k, v in one], blanks) for one in messages]
    members = [(k, json.dumps(v, ensure_ascii=ascii_only)) for k, v in scalars] + [("list", f"[{','.join(written)}]")]
    body = _write(members, blanks).encode()
    twice = len({k for k, _ in members}) < len(members) or any(len({k for k, _ in m}) < len(m) for m in messages)
    if twice:
        with pytest.raises(DuplicateKeyError):
            check_members(body)
    else:
        check_members(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":1}',
        b'{"a":1, "a" :1}',
        b'{"a":1,"\\u0061":1}',
        b'{"a":"\\":","a":1}',
        b'{"l":[{"a":1,"a":1}]}',
        b'{"l":[{"a":{"b":1,"b":2}}]}',
        b'{"l":[[{"a":1,"a":1}]]}',
        b'{"o":{"a":1,"a":1}}',
        b'{"a"\n:1,"a":1}',
    ],
)
def test_found_where_it_hides(body: bytes) -> None:
    with pytest.raises(DuplicateKeyError):
        check_members(body)
