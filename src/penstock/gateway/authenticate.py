"""Step 2: whose key is this?"""

import hashlib

from penstock.core.errors import Unauthenticated
from penstock.gateway.index import Caller, Index


def authenticate(index: Index, authorization: bytes | None, now: float) -> Caller:
    """The caller whose key `authorization` (the header field) shows.

    Raises:
        Unauthenticated: if there is none, or it is not known, or has expired.
    """
    if authorization is None:
        raise Unauthenticated("No API key was given: send it as `Authorization: Bearer KEY`.", code="missing_api_key")
    scheme, _, secret = authorization.partition(b" ")
    if scheme != b"Bearer" and scheme.lower() != b"bearer":
        raise Unauthenticated("The API key must be sent as `Authorization: Bearer KEY`.")
    caller = index.callers.get(hashlib.sha256(secret.strip()).hexdigest())
    if caller is None:
        raise Unauthenticated("This API key is not known.")
    if now >= caller.expires_at:
        raise Unauthenticated("This API key has expired.", code="expired_api_key")
    return caller
