"""The `x-ratelimit-*` fields, as OpenAI names and writes them."""

from penstock.access.leases import Account, Holder

_BOTH = (
    b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %b\r\n"
    b"x-ratelimit-limit-tokens: %d\r\nx-ratelimit-remaining-tokens: %d\r\nx-ratelimit-reset-tokens: %b\r\n"
)
_ONE = b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\nx-ratelimit-reset-%b: %b\r\n"
_WRITTEN = [b"%ds" % s if s < 60 else b"%dm%ds" % divmod(s, 60) for s in range(128)]


def limit_lines(holder: Holder, now: float) -> bytes:
    """The tightest limit on requests and on tokens, what is left of it and when it is whole again, as far as this worker knows.

    What is not limited is not told. `now` is monotonic.
    """
    requests, tokens = holder.shown
    if requests and tokens:
        # `Account.left` written out, because every reply carries these: the account with the least left of each.
        first = requests[0]
        left = first.remaining + first.balance if now < first.reset else first.limit
        for account in requests[1:]:
            other = account.remaining + account.balance if now < account.reset else account.limit
            if other < left:
                first, left = account, other
        second = tokens[0]
        rest = second.remaining + second.balance if now < second.reset else second.limit
        for account in tokens[1:]:
            other = account.remaining + account.balance if now < account.reset else account.limit
            if other < rest:
                second, rest = account, other
        return _BOTH % (
            first.limit,
            max(0, left),
            duration(first.reset - now),
            second.limit,
            max(0, rest),
            duration(second.reset - now),
        )
    return (_one(b"requests", requests, now) if requests else b"") + (_one(b"tokens", tokens, now) if tokens else b"")


def _one(name: bytes, accounts: tuple[Account, ...], now: float) -> bytes:
    tightest = min(accounts, key=lambda account: account.left(now))
    left = max(0, tightest.left(now))
    return _ONE % (name, tightest.limit, name, left, name, duration(tightest.reset - now))


def duration(seconds: float) -> bytes:
    """`seconds` as OpenAI writes them: `250ms`, `12s`, `6m0s`, `23h59m59s`; 0 and less is none."""
    if seconds < 1:
        return b"%dms" % (seconds * 1000) if seconds > 0 else b"0ms"
    whole = int(seconds + 0.999)
    if whole < 128:
        return _WRITTEN[whole]
    minutes, rest = divmod(whole, 60)
    return b"%dm%ds" % (minutes, rest) if minutes < 60 else b"%dh%dm%ds" % (minutes // 60, minutes % 60, rest)
