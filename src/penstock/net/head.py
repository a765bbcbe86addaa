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
        length = length.strip(b" \t")
        if not length.isdigit() or (length[:1] == b"0" and length != b"0"):
            raise BadRequest("The header field content-length is no plain number.", code="bad_http")
        if int(length) > limits.max_body_bytes:
            raise body_too_large(limits)
    if b"transfer-encoding" in headers:
        if headers[b"transfer-encoding"].strip().lower() != b"chunked" or version != "1.1":
            raise BadRequest("The only transfer encoding understood is chunked, in HTTP/1.1.", code="bad_http")
        if length is not None:
            raise BadRequest("Content-length and transfer-encoding exclude each other.", code="bad_http")


def origin_form(method: bytes, target: bytes) -> bytes:
    """The path and query that a request's target means (RFC 9112, section 3.2); `*` for the whole server.

    Raises:
        BadRequest: if the target is none that `method` may have, or asks for a tunnel.
    """
    if method == b"CONNECT":
        raise BadRequest("CONNECT is not done: this is no proxy.", code="bad_http")
    if b"#" in target:
        raise BadRequest("The request's target holds a fragment, which is not for servers.", code="bad_http")
    if target[:1] == b"/" or (target == b"*" and method == b"OPTIONS"):
        return target
    scheme, colon, rest = target.partition(b"://")
    if not colon or scheme.lower() not in {b"http", b"https"}:
        raise BadRequest("The request's target is neither a path nor a URL.", code="bad_http")
    authority = rest.partition(b"/")[0].partition(b"?")[0]
    if not authority or b"@" in authority:
        raise BadRequest("The request's target is a URL without a plain host.", code="bad_http")
    path = rest[len(authority) :]
    return path if path[:1] == b"/" else b"/" + path


def check_trailer(name: bytes) -> None:
    """Refuses a field behind a chunked body that would frame one (RFC 9110, section 6.5.1). `name` is in lower case.

    Raises:
        BadRequest: if it would.
    """
    if name in {b"content-length", b"transfer-encoding"}:
        raise BadRequest(f"The field {name.decode()} stands in the trailer.", code="bad_http")


def not_http(data: bytes, reason: Exception) -> PenstockError:
    """The refusal of what the parser does not take; says so where it is another protocol that people may have meant."""
    if data.startswith(b"PRI * HTTP/2.0"):
        return BadRequest("HTTP/2 is not spoken here; use HTTP/1.1.", code="bad_http")
    if data[:2] == b"\x16\x03":
        return BadRequest("This port does not speak TLS: write http:// for it.", code="bad_http")
    return BadRequest(f"The request is not valid HTTP/1.1: {reason}.", code="bad_http")


def header_too_large(limits: ServerLimits) -> PenstockError:
    """The refusal of a head beyond the limit."""
    return HeaderTooLarge(
        f"The request's head is longer than {limits.max_header_bytes} bytes, or has more than {limits.max_headers} fields."
    )


def body_too_large(limits: ServerLimits) -> PenstockError:
    """The refusal of a body beyond the limit."""
    return TooLarge(f"The request's body is longer than {limits.max_body_bytes} bytes.")
