"""Step 2: whose key is this?"""

import hashlib

from penstock.core.errors import Forbidden, PenstockError, Unauthenticated, Unavailable
from penstock.gateway.index import Caller, Index


def authenticate(index: Index, authorization: bytes | None, now: float) -> Caller:
    """The caller whose key `authorization` (the header field) shows.

    Raises:
        Unauthenticated: if there is none, or it is not known, or has expired.
        Forbidden: if it is known and what the Snapshot says of it makes no sense.
        Unavailable: if there is no Snapshot yet that could tell.
    """
    if authorization is None:
        raise Unauthenticated("No API key was given: send it as `Authorization: Bearer KEY`.", code="missing_api_key")
    scheme, _, secret = authorization.partition(b" ")
    if scheme != b"Bearer" and scheme.lower() != b"bearer":
        raise Unauthenticated("The API key must be sent as `Authorization: Bearer KEY`.")
    known_as = hashlib.sha256(secret.strip()).hexdigest()
    caller = index.callers.get(known_as)
    if caller is None:
        raise _nobody(index, known_as)
    if now >= caller.expires_at:
        raise Unauthenticated("This API key has expired.", code="expired_api_key")
    return caller


def _nobody(index: Index, known_as: str) -> PenstockError:
    """Why the key with this hash is nobody's."""
    if not index.generation:
        return Unavailable("This gateway does not know its keys and models yet.", code="no_snapshot", retry_after=1)
    if known_as in index.lost_keys:
        return Forbidden(
            "What is configured for this API key cannot be used; `penstock doctor` tells its operator why.",
            code="key_unusable",
        )
    return Unauthenticated("This API key is not known.")
