"""The `x-ratelimit-*` fields, as OpenAI names and writes them."""

from penstock.gateway.ports import Standing


def standing_lines(standing: Standing) -> bytes:
    """Limits, what is left of them and when they are whole again; what is not limited is not told."""
    lines = b""
    limit = standing.requests_limit
    if limit is not None:
        lines = (
            b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %b\r\n"
            % (limit, max(0, standing.requests_left), duration(standing.requests_reset_s))
        )
    limit = standing.tokens_limit
    if limit is not None:
        lines += (
            b"x-ratelimit-limit-tokens: %d\r\nx-ratelimit-remaining-tokens: %d\r\nx-ratelimit-reset-tokens: %b\r\n"
            % (
                limit,
                max(0, standing.tokens_left),
                duration(standing.tokens_reset_s),
            )
        )
    return lines


def duration(seconds: float) -> bytes:
    """`seconds` as OpenAI writes them: `250ms`, `12s`, `6m0s`."""
    if seconds < 1:
        return b"%dms" % int(seconds * 1000)
    if seconds < 60:
        return b"%ds" % int(seconds + 0.999)
    return b"%dm%ds" % divmod(int(seconds + 0.999), 60)
