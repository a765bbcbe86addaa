"""The `x-ratelimit-*` fields, as OpenAI names and writes them."""

from penstock.gateway.ports import Standing


def standing_lines(standing: Standing) -> bytes:
    """Limits, what is left of them and when they are whole again; what is not limited is not told."""
    requests, tokens = standing.requests(), standing.tokens()
    lines = b""
    if requests is not None:
        limit, left, reset = requests
        lines = (
            b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %b\r\n"
            % (limit, max(0, left), duration(reset))
        )
    if tokens is not None:
        limit, left, reset = tokens
        lines += (
            b"x-ratelimit-limit-tokens: %d\r\nx-ratelimit-remaining-tokens: %d\r\nx-ratelimit-reset-tokens: %b\r\n"
            % (
                limit,
                max(0, left),
                duration(reset),
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
