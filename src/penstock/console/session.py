"""The console's session: the key that signed in, sealed into a cookie, and the token that its forms carry.

The cookie is encrypted and authenticated (Fernet: AES-128-CBC with HMAC-SHA256) under a key derived from the console's secret, so
that the browser holds the API key but cannot read it, and every control process that shares the secret can open it.
"""

import base64
import hmac
import secrets
from collections.abc import Callable

import msgspec
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from penstock.core.errors import Forbidden

COOKIE = "penstock_console"
LIFETIME_S = 12 * 3600


class Session(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One browser's session. Without `key` nobody has signed in yet, and it holds only the token of the sign-in form."""

    csrf: str
    key: str = ""  # of the control API
    gateway_key: str = ""  # that the playground uses, when the reader gave one

    def check(self, token: str) -> None:
        """Raise `Forbidden` unless `token` is the one that this session's forms carry."""
        if not hmac.compare_digest(self.csrf.encode(), token.encode()):
            raise Forbidden(
                "This form is not from your session, or the session has changed since it was shown.",
                code="csrf",
                hint="Go back, reload the page and send the form again.",
            )


class Sealer:
    """Seals sessions into cookies and opens them again.

    Args:
        secret: at least 16 bytes that only the control processes know.
        clock: Unix seconds.
    """

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        if len(secret) < 16:
            raise ValueError("the console's secret must have at least 16 bytes")
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"penstock console session").derive(secret)
        self._fernet = Fernet(base64.urlsafe_b64encode(derived))
        self._clock = clock

    def fresh(self) -> Session:
        """A session in which nobody has signed in."""
        return Session(csrf=secrets.token_urlsafe(24))

    def seal(self, session: Session) -> str:
        """The cookie's text."""
        return self._fernet.encrypt_at_time(msgspec.json.encode(session), int(self._clock())).decode()

    def open(self, cookie: str | None) -> Session | None:
        """The session in `cookie`; none if it is absent, forged, from another secret or older than `LIFETIME_S`."""
        if not cookie:
            return None
        try:
            data = self._fernet.decrypt_at_time(cookie.encode(), LIFETIME_S, int(self._clock()))
            return msgspec.json.decode(data, type=Session)
        except (InvalidToken, UnicodeEncodeError, msgspec.DecodeError):
            return None
