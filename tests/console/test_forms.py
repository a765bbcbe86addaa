import pytest

from penstock.console.client import at, told_error
from penstock.console.forms import local_path, optional_number
from penstock.core.errors import BadRequest, Conflict, NotFound, Unavailable


@pytest.mark.parametrize("text", ["/", "/models/a?b=c", "/live/x"])
def test_paths_of_this_site_are_kept(text: str) -> None:
    assert local_path(text) == text


@pytest.mark.parametrize(
    "text", ["", "//evil.example", "/\\evil.example", "https://evil.example", "javascript:x", "/a\nb"]
)
def test_other_targets_lead_home(text: str) -> None:
    assert local_path(text) == "/"


def test_numbers_of_forms_are_checked() -> None:
    assert optional_number({"t": " 0.5 "}, "t", 0, 2) == 0.5
    assert optional_number({}, "t", 0, 2) is None
    for text in ("x", "3", "-1", "nan", "inf"):
        with pytest.raises(BadRequest, match="t is"):
            optional_number({"t": text}, "t", 0, 2)


def test_names_in_paths_are_quoted() -> None:
    assert at("models", "a/b?c#d", "versions") == "/models/a%2Fb%3Fc%23d/versions"
    for name in ("", ".", ".."):
        with pytest.raises(NotFound):
            at("models", name)


def test_refusals_come_through_as_they_were_sent() -> None:
    error = told_error(
        409, b'{"error": {"message": "It moved.", "code": "conflict", "param": "x", "hint": "Look again."}}'
    )
    assert isinstance(error, Conflict)
    assert (error.message, error.code, error.param, error.hint) == ("It moved.", "conflict", "x", "Look again.")
    assert isinstance(told_error(502, b"<html>"), Unavailable)
