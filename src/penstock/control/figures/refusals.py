"""By which patterns an answer is known as a refusal: checked where they are declared, read where they are needed."""

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from penstock.control.errors import validation_error
from penstock.control.specs.resources import Refusals
from penstock.core.errors import BadRequest
from penstock.routing.patterns import Patterns
from penstock.wire.quality import asking

_list = TypeAdapter(Refusals)


def check_refusals(patterns: Sequence[str], path: str) -> None:
    """Raises `BadRequest`, naming `path`, for patterns that RE2 refuses or that are too long together for a header field."""
    for at, pattern in enumerate(patterns):
        try:
            Patterns((pattern,))
        except BadRequest as error:
            raise BadRequest(f"{path}.{at}: {error.message}", param=f"{path}.{at}", code=error.code) from None
    try:
        asking(tuple(patterns))
    except ValueError as error:
        raise BadRequest(f"{path}: {error}.", param=path, code="bad_pattern") from None


def check_metadata(told: object) -> None:
    """Raises `BadRequest` if a version's `refusals` are no patterns."""
    try:
        patterns = _list.validate_python(told)
    except ValidationError as error:
        raise validation_error(error, "metadata.refusals") from None
    check_refusals(patterns, "metadata.refusals")


def refusals_of(metadata: dict[str, Any]) -> tuple[str, ...]:
    """The patterns that a version's metadata tell; none if there are none that can be read."""
    try:
        return tuple(_list.validate_python(metadata.get("refusals", [])))
    except ValidationError:
        return ()
