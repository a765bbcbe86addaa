"""The error tree. One place maps it to HTTP (`status`) and one to exit codes (`exit_code`).

PenstockError
├── BadRequest          400  the request is malformed; `param` names the field
├── Unauthenticated     401  no key, or one that is not known
├── Forbidden           403  known, but not allowed
├── NotFound            404  no such thing, or not visible to the caller
├── Conflict            409  the thing changed meanwhile, or exists already
├── MethodNotAllowed    405  the path exists, the method does not
├── RequestTimeout      408  the client took too long to send its request
├── TooLarge            413  body or context too large
├── ExpectationFailed   417  `expect` asks for what is not done here
├── HeaderTooLarge      431  the request's head is too large
├── RateLimited         429  over a limit; `retry_after` seconds
├── ContentFiltered     400  a guard rule blocked it (code `content_filter`)
├── Unavailable         503  nothing can serve this now; `retry_after` seconds
├── UpstreamFailed      502  the engine broke or answered garbage
├── UpstreamTimeout     504  the engine did not answer in time
├── VersionUnknown      505  the request is in a version of HTTP that is not spoken
└── Damaged             500  stored bytes are not what was written
"""


class PenstockError(Exception):
    """Anything that Penstock refuses or fails at, with a sentence for people.

    Attributes:
        message: one sentence that names the thing, the value and what to do.
        code: stable, machine-readable, snake_case.
        param: the field, parameter or path that is wrong, if one is.
        retry_after: seconds after which trying again makes sense, if it does.
        hint: the next step, for the CLI and the console.
    """

    status = 500
    type = "server_error"
    default_code = "internal_error"
    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.retry_after = retry_after
        self.hint = hint


class BadRequest(PenstockError):
    """The request is malformed; `param` names the field."""

    status = 400
    type = "invalid_request_error"
    default_code = "invalid_value"
    exit_code = 2


class Unauthenticated(PenstockError):
    """No key was given, or one that is not known."""

    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"


class Forbidden(PenstockError):
    """The caller is known but not allowed to do this."""

    status = 403
    type = "permission_error"
    default_code = "permission_denied"


class NotFound(PenstockError):
    """There is no such thing, or the caller may not see it."""

    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class Conflict(PenstockError):
    """The thing changed meanwhile, or exists already."""

    status = 409
    type = "conflict_error"
    default_code = "conflict"


class MethodNotAllowed(PenstockError):
    """The path exists, but not with this method."""

    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"


class RequestTimeout(PenstockError):
    """The client took too long to send its request."""

    status = 408
    type = "invalid_request_error"
    default_code = "request_timeout"


class TooLarge(PenstockError):
    """The body is larger than the limit."""

    status = 413
    type = "invalid_request_error"
    default_code = "request_too_large"


class ExpectationFailed(PenstockError):
    """The client expects what this server does not do."""

    status = 417
    type = "invalid_request_error"
    default_code = "expectation_failed"


class HeaderTooLarge(PenstockError):
    """The request's head is larger than the limit."""

    status = 431
    type = "invalid_request_error"
    default_code = "header_too_large"


class RateLimited(PenstockError):
    """Over a limit; `retry_after` says when to come back."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class ContentFiltered(PenstockError):
    """A guard rule blocked the content."""

    status = 400
    type = "invalid_request_error"
    default_code = "content_filter"


class Unavailable(PenstockError):
    """Nothing can serve this now."""

    status = 503
    type = "server_error"
    default_code = "unavailable"


class UpstreamFailed(PenstockError):
    """The engine broke off or answered what is no answer."""

    status = 502
    type = "server_error"
    default_code = "upstream_failed"


class UpstreamTimeout(PenstockError):
    """The engine did not answer in time."""

    status = 504
    type = "server_error"
    default_code = "upstream_timeout"


class VersionUnknown(PenstockError):
    """The request is in a version of HTTP that is not spoken."""

    status = 505
    type = "invalid_request_error"
    default_code = "bad_http"


class Damaged(PenstockError):
    """Stored bytes are not the bytes that were written."""

    default_code = "damaged"
