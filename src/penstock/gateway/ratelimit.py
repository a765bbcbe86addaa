"""The `x-ratelimit-*` fields, as OpenAI names and writes them."""

from penstock.gateway.ports import Standing


def standing_lines(standing: Standing) -> bytes:
    """Limits, what is left of them and when they are whole again; what is not limited is not told."""
    lines = b""
    if standing.requests_limit is not None:
        lines = (
            b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %b\r\n"
            % (standing.requests_limit, max(0, standing.requests_left), _duration(standing.requests_reset_s))
        )
    if standing.tokens_limit is not None:
        lines += (
            b"x-ratelimit-limit-tokens: %d\r\nx-ratelimit-remaining-tokens: %d\r\nx-ratelimit-reset-tokens: %b\r\n"
            % (
                standing.tokens_limit,
                max(0, standing.tokens_left),
                _duration(standing.tokens_reset_s),
            )
        )
    return lines


def _duration(seconds: float) -> bytes:
    if seconds < 1:
        return b"%dms" % int(seconds * 1000)
    if seconds < 60:
        return b"%ds" % int(seconds + 0.999)
    return b"%dm%ds" % divmod(int(seconds + 0.999), 60)
