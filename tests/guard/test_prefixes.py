import re

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.guard.prefixes import ending, parse

ALPHABET = "ab1 "


def patterns() -> st.SearchStrategy[str]:
    atoms = st.sampled_from(
        ["a", "b", "1", " ", "[ab]", "[^a]", r"\d", r"\w", ".", r"\b", "^", "$", r"\x61", "(?i:A)", "a(?i)B"]
    )
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.lists(inner, min_size=2, max_size=3).map("".join),
            st.lists(inner, min_size=2, max_size=3).map(lambda p: "(?:" + "|".join(p) + ")"),
            st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0,2}", "{2,}", "+?"])).map(
                lambda p: f"(?:{p[0]}){p[1]}"
            ),
            inner.map(lambda p: f"({p})"),
        ),
        max_leaves=6,
    )


def compiled(pattern: str) -> re2._Regexp | None:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error:
        return None


@settings(max_examples=400, deadline=None)
@given(patterns(), st.text(ALPHABET, max_size=6), st.text(ALPHABET, min_size=1, max_size=4))
def test_no_match_begins_before_the_ending_that_is_held(pattern: str, text: str, more: str) -> None:
    """If `more` brings about a match, or another one, that begins in `text`, then it begins in what is held back of `text`."""
    whole = compiled(pattern)
    if whole is None:
        return
    tail = compiled(ending(pattern, looks_ahead=False))
    assert tail is not None
    found = tail.search(text)
    held = len(text) if found is None else found.start()
    before, after = whole.search(text), whole.search(text + more)
    if after is not None and after.start() < held:
        assert before is not None
        assert before.span() == after.span()
    if before is not None and before.start() < held:
        assert after is not None
        assert before.span() == after.span()


@settings(max_examples=200, deadline=None)
@given(patterns(), st.text(ALPHABET, max_size=6))
def test_the_parsed_source_means_the_same(pattern: str, text: str) -> None:
    whole = compiled(pattern)
    if whole is None:
        return
    shape = parse(pattern)
    again = compiled(shape.source)
    assert again is not None
    one, two = whole.search(text), again.search(text)
    assert (one and one.span()) == (two and two.span())
    if one is not None:
        assert one.end() - one.start() >= shape.least


@pytest.mark.parametrize(
    ("pattern", "text", "held"),
    [
        ("foo", "a fo", "fo"),
        ("foo", "a foo", ""),
        (r"foo\b", "a foo", "foo"),
        (r"\bfoo", "xfo", ""),
        (r"\d{3,5}", "n 12", "12"),
        (r"a(?:b|cd)*e", "xxabcdc", "abcdc"),
        (r"(?i)TOP(?-i)x", "a toP", "toP"),
        (r"(?P<n>ab)c", "ab", "ab"),
        (r"x[]a]y", "x]", "x]"),
        (r"x[^\]]y", "xa", "xa"),
        (r"\pL\p{Greek}z", "qω", "qω"),
        (r"\x{e9}\.", "é", "é"),
        (r"a{,3}b", "a{,3}", "a{,3}"),
    ],
)
def test_what_is_held(pattern: str, text: str, held: str) -> None:
    tail = compiled(ending(pattern, looks_ahead=False))
    assert tail is not None
    found = tail.search(text)
    assert (found.group() if found else "") == held


@pytest.mark.parametrize("pattern", [r"a\Cb", r"\Qa.b\E"])
def test_what_streams_cannot_do_is_refused(pattern: str) -> None:
    with pytest.raises(BadRequest, match="not supported"):
        parse(pattern)


def test_stdlib_agrees_on_the_syntax_used_here() -> None:
    assert re.compile(parse(r"(?:a|b){2}c").source).fullmatch("abc")
