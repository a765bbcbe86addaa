"""What is wrong with a request's head: all that can be refused before the body comes."""

from penstock.core.errors import BadRequest, HeaderTooLarge, PenstockError, TooLarge, VersionUnknown
from penstock.net.limits import ServerLimits


def check_head(headers: dict[bytes, bytes], version: str, size: int, limits: ServerLimits) -> None:
    """Refuses what is too large, and what two servers could understand differently (RFC 9112, sections 3.2 and 6.3).

    Args:
        headers: by lower-case name.
        version: of HTTP, as "1.1".
        size: bytes of the target and all fields.
        limits: the server's.

    Raises:
        PenstockError: a kind with the status to answer.
    """
    if size > limits.max_header_bytes:
        raise header_too_large(limits)
    if version == "1.1":
        if b"host" not in headers:
            raise BadRequest("The header field host is missing.", code="bad_http")
    elif version != "1.0":
        raise VersionUnknown(f"HTTP/{version} is not spoken here; HTTP/1.1 is.")
    length = headers.get(b"content-length")
    if length is not None:
        if not length.strip().isdigit():
            raise BadRequest("The header field content-length is no number.", code="bad_http")
        if int(length) > limits.max_body_bytes:
            raise body_too_large(limits)
    if b"transfer-encoding" in headers:
        if headers[b"transfer-encoding"].strip().lower() != b"chunked" or version != "1.1":
            raise BadRequest("The only transfer encoding understood is chunked, in HTTP/1.1.", code="bad_http")
        if length is not None:
            raise BadRequest("Content-length and transfer-encoding exclude each other.", code="bad_http")


def origin_form(target: bytes) -> bytes:
    """The path and query of a target that is a whole URL.

    Raises:
        BadRequest: if it is none.
    """
    scheme, colon, rest = target.partition(b"://")
    if not colon or scheme.lower() not in {b"http", b"https"}:
        raise BadRequest("The request's target is neither a path nor a URL.", code="bad_http")
    _, slash, path = rest.partition(b"/")
    return slash + path if slash else b"/"


def header_too_large(limits: ServerLimits) -> PenstockError:
    """The refusal of a head beyond the limit."""
    return HeaderTooLarge(f"The request's head is longer than {limits.max_header_bytes} bytes.")


def body_too_large(limits: ServerLimits) -> PenstockError:
    """The refusal of a body beyond the limit."""
    return TooLarge(f"The request's body is longer than {limits.max_body_bytes} bytes.")
