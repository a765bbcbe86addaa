"""Forms as browsers send them: one small urlencoded body, each field once."""

from urllib.parse import parse_qsl

from starlette.requests import Request

from penstock.core.errors import BadRequest, TooLarge

MOST_BYTES = 1_048_576
MOST_FIELDS = 100


async def read_form(request: Request) -> dict[str, str]:
    """The fields of the form in the body; of a repeated one the last.

    Raises:
        BadRequest: if the body is no urlencoded UTF-8 form.
        TooLarge: if it has over a mebibyte.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise BadRequest(f"A form was expected here, and the body is {kind or 'of no known type'}.")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise TooLarge(f"The form is larger than {MOST_BYTES} bytes.")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict"))
    except ValueError as error:
        raise BadRequest(f"The form cannot be read: {error}.") from None


def local_path(text: str) -> str:
    """`text` if it is a path on this site to go to after signing in, else `/`."""
    if text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable():
        return text
    return "/"


def optional_number(form: dict[str, str], name: str, low: float, high: float) -> float | None:
    """The number in the field `name`; none if it is empty.

    Raises:
        BadRequest: if it is no number, or not between `low` and `high`.
    """
    text = form.get(name, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise BadRequest(f"{name} is {text!r}: a number is needed.", param=name) from None
    if not low <= value <= high:
        raise BadRequest(f"{name} is {text}: it must be between {low:g} and {high:g}.", param=name)
    return value
