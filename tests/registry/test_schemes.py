import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.registry.schemes import compare, parse_label, suggest_next

TODAY = dt.date(2024, 2, 28)


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("v2.1.3", "semantic"), ("v2.1.3-rc.1", "semantic"), ("v0.0.0", "semantic"), ("2023-09-15", "date"),
        ("20230915", "date"), ("run123", "run"), ("experiment456-run789", "run"),
    ],
)  # fmt: skip
def test_the_three_schemes(text: str, scheme: str) -> None:
    assert parse_label(text).scheme == scheme


@pytest.mark.parametrize(
    "text",
    ["", "2.1.3", "v1", "v1.2", "v01.2.3", "v1.2.3+build", "2023-13-01", "2023-02-30", "20230230", "2023-0915", "run", "run-1", "run01", "latest", "v1.2.3 ", "v1.2.٣"],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_label(text)
    assert refused.value.param == "label"


# The precedence example of Semantic Versioning 2.0.0, section 11.
SEMANTIC = [
    "v1.0.0-alpha",
    "v1.0.0-alpha.1",
    "v1.0.0-alpha.beta",
    "v1.0.0-beta",
    "v1.0.0-beta.2",
    "v1.0.0-beta.11",
    "v1.0.0-rc.1",
    "v1.0.0",
]


@pytest.mark.parametrize(
    "ordered",
    [SEMANTIC, ["2023-09-15", "20230916", "2024-01-01"], ["run9", "run10", "experiment1-run2", "experiment2-run1"]],
)
def test_order_within_a_scheme(ordered: list[str]) -> None:
    labels = [parse_label(text) for text in ordered]
    for i, one in enumerate(labels):
        for j, other in enumerate(labels):
            assert compare(one, other) == (i > j) - (i < j)


def test_there_is_no_order_between_schemes() -> None:
    with pytest.raises(BadRequest, match="different schemes"):
        compare(parse_label("v1.0.0"), parse_label("run1"))


@pytest.mark.parametrize(
    ("labels", "following"),
    [
        ([], "v1.0.0"), (["v1.0.0", "v1.2.9"], "v1.2.10"), (["v2.0.0", "v1.9.9"], "v2.0.1"), (["v1.0.0-rc.1"], "v1.0.0"),
        (["2024-02-01"], "2024-02-28"), (["2024-02-28"], "2024-02-29"), (["20240301"], "20240302"), (["run9"], "run10"),
        (["experiment4-run7"], "experiment4-run8"), (["v1.0.0", "run3"], "run4"),
    ],
)  # fmt: skip
def test_the_next_label(labels: list[str], following: str) -> None:
    assert suggest_next([parse_label(text) for text in labels], TODAY) == following


@given(st.lists(st.tuples(*[st.integers(0, 99)] * 3), min_size=1), st.sampled_from(["major", "minor", "patch"]))
def test_the_next_label_is_newer_than_all(versions: list[tuple[int, int, int]], change: str) -> None:
    labels = [parse_label(f"v{a}.{b}.{c}") for a, b, c in versions]
    following = parse_label(suggest_next(labels, TODAY, change=change))  # type: ignore[arg-type]
    assert all(compare(following, label) > 0 for label in labels)
