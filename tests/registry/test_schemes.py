"""Version schemes."""

import datetime as dt
import functools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.registry.schemes import Label, compare, newest, parse_label, suggest_next, twin

TODAY = dt.date(2024, 5, 1)
numbers = st.integers(0, 9999)
semantic = st.builds(
    lambda a, b, c, pre: f"v{a}.{b}.{c}" + (f"-{pre}" if pre else ""),
    numbers,
    numbers,
    numbers,
    st.sampled_from(["", "alpha", "alpha.1", "rc.2", "rc.11"]),
)
dates = st.builds(
    lambda d, compact: d.strftime("%Y%m%d") if compact else d.isoformat(),
    st.dates(dt.date(1900, 1, 1), dt.date(2200, 1, 1)),
    st.booleans(),
)
runs = st.builds(lambda e, r: (f"experiment{e}-" if e else "") + f"run{r}", numbers, numbers)


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("v1.2.3", "semantic"),
        ("v2.1.3-rc.1", "semantic"),
        ("2023-09-15", "date"),
        ("20230915", "date"),
        ("run123", "run"),
        ("experiment456-run789", "run"),
    ],
)
def test_the_three_schemes_are_known(text: str, scheme: str) -> None:
    assert parse_label(text).scheme == scheme


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latest",
        "1.2.3",
        "v1.2",
        "v01.2.3",
        "v1.2.3-",
        "v1.2.3-01",
        "2023-02-30",
        "20231301",
        "run",
        "Run1",
        "v1.2.3 ",
        "v\u0661.0.0",
        "run\uff11",
        "run007",
        "experiment01-run1",
        "\u0662\u0660230915",
        "v1.2.3-\u200b",
        "v1.2.3+build",
        "v" + "9" * 19 + ".0.0",
    ],
)
def test_what_follows_no_scheme_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_label(text)
    assert refused.value.param == "label"


def test_precedence_is_that_of_semver_org() -> None:
    order = [
        "v1.0.0-alpha",
        "v1.0.0-alpha.1",
        "v1.0.0-alpha.beta",
        "v1.0.0-beta",
        "v1.0.0-beta.2",
        "v1.0.0-beta.11",
        "v1.0.0-rc.1",
        "v1.0.0",
    ]
    labels = [parse_label(text) for text in order]
    assert sorted(labels, key=functools.cmp_to_key(compare)) == labels


@given(
    st.one_of(
        st.lists(semantic, min_size=3, max_size=3),
        st.lists(dates, min_size=3, max_size=3),
        st.lists(runs, min_size=3, max_size=3),
    )
)
def test_comparison_is_an_order(texts: list[str]) -> None:
    a, b, c = (parse_label(text) for text in texts)
    assert compare(a, a) == 0
    assert compare(a, b) == -compare(b, a)
    if compare(a, b) <= 0 and compare(b, c) <= 0:
        assert compare(a, c) <= 0


@given(st.lists(st.one_of(semantic, dates, runs), max_size=8), st.sampled_from(["semantic", "date", "run"]))
def test_the_suggested_label_comes_after_all_of_its_scheme(texts: list[str], scheme: str) -> None:
    labels = [parse_label(text) for text in texts]
    following = parse_label(suggest_next(labels, scheme, today=TODAY))  # type: ignore[arg-type]
    assert following.scheme == scheme
    last = newest(labels, scheme)
    assert last is None or compare(following, last) > 0


def test_suggestions_follow_the_bump_and_the_experiment() -> None:
    def labels(*texts: str) -> list[Label]:
        return [parse_label(text) for text in texts]

    assert suggest_next([], "semantic", today=TODAY) == "v1.0.0"
    assert suggest_next(labels("v1.2.3"), "semantic", today=TODAY, bump="patch") == "v1.2.4"
    assert suggest_next(labels("v1.2.3"), "semantic", today=TODAY, bump="major") == "v2.0.0"
    assert suggest_next(labels("v1.3.0-rc.1"), "semantic", today=TODAY) == "v1.3.0"
    assert suggest_next(labels("2024-05-01"), "date", today=TODAY) == "2024-05-02"
    assert suggest_next(labels("experiment4-run7", "run9"), "run", today=TODAY) == "experiment4-run8"


def test_pre_releases_experiments_and_spellings_are_followed() -> None:
    def following(*texts: str, scheme: str = "semantic", **wish: Any) -> str:
        return suggest_next([parse_label(text) for text in texts], scheme, today=TODAY, **wish)  # type: ignore[arg-type]

    assert following(pre="rc") == "v1.0.0-rc.1"
    assert following("v1.2.0", pre="rc") == "v1.3.0-rc.1"
    assert following("v1.3.0-rc.1", pre="rc") == "v1.3.0-rc.2"
    assert following("v1.3.0-beta.4", pre="rc") == "v1.3.0-rc.1"
    assert following("v1.3.0-rc.1", pre="beta") == "v1.4.0-beta.1"
    assert following("experiment4-run7", "experiment5-run2", scheme="run", experiment=4) == "experiment4-run8"
    assert following(scheme="run", experiment=9) == "experiment9-run1"
    assert following("20230915", scheme="date") == "20240501"
    assert following("2023-09-15", scheme="date", compact=True) == "20240501"
    for text, wish in (("9999-12-31", "date"), ("run" + "9" * 18, "run")):
        with pytest.raises(BadRequest, match="comes after"):
            following(text, scheme=wish)


@given(dates)
def test_a_day_has_two_spellings_that_are_one_label(text: str) -> None:
    label = parse_label(text)
    other = twin(label)
    assert other is not None
    assert other != text
    assert compare(parse_label(other), label) == 0
    assert twin(parse_label(other)) == text
    assert twin(parse_label("v1.0.0")) is None


def test_labels_of_different_schemes_cannot_be_compared() -> None:
    with pytest.raises(BadRequest, match="different schemes"):
        compare(parse_label("v1.0.0"), parse_label("run1"))
