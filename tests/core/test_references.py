import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.core.references import Reference, parse_reference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("support-bot:v1.1.0", Reference(name="support-bot", label="v1.1.0")),
        ("support-bot@production", Reference(name="support-bot", alias="production")),
        (f"support-bot@{DIGEST}", Reference(name="support-bot", digest=DIGEST)),
        ("support-bot-v1.1.0", Reference(name="support-bot", label="v1.1.0")),
        ("llama-7b-chat-v2.1.3", Reference(name="llama-7b-chat", label="v2.1.3")),
        ("llama-7b-chat-v2.1.3-rc.1", Reference(name="llama-7b-chat", label="v2.1.3-rc.1")),
        ("name-2023-09-15", Reference(name="name", label="2023-09-15")),
        ("name-20230915", Reference(name="name", label="20230915")),
        ("name-run123", Reference(name="name", label="run123")),
        ("name-experiment456-run789", Reference(name="name", label="experiment456-run789")),
    ],
)
def test_every_way_to_write_a_version(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "support-bot",
        "support-bot:",
        ":v1",
        "../x:v1",
        "a/b:v1",
        "A:v1",
        "x@sha256:12",
        "x@",
        "x:../../etc",
        "x:v 1",
        "-x:v1",
    ],
)
def test_what_is_no_reference_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_reference(text)
    assert refused.value.param == "reference"


@given(
    st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True),
    st.from_regex(r"v[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}", fullmatch=True),
)
def test_writing_and_reading_agree(name: str, label: str) -> None:
    reference = Reference(name=name, label=label)
    assert parse_reference(str(reference)) == reference
