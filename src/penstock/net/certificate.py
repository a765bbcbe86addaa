"""The server's certificate and key, read again when the files have changed."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from cryptography import x509

from penstock.core.errors import BadRequest

_log = logging.getLogger("penstock.net")

Signature = tuple[int, ...]


class Certificate:
    """A certificate with its chain, and its key, both as PEM files.

    Attributes:
        context: for connections that begin now; those that stand keep theirs.
        expires: when the first certificate of the chain to end does so, in Unix seconds.
        failures: how often files that had changed could not be used.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """Reads both files.

        Raises:
            BadRequest: if one cannot be read, or they do not belong together; the message names it.
        """
        self._certificate = certificate
        self._key = key
        self._seen = self._signature()
        self.failures = 0
        self.context, self.expires = self._read()

    def renew(self, *, force: bool = False) -> bool:
        """Takes the files as they are now if they have changed, or in any case with `force`; whether it did.

        While they are not right (a new certificate beside the old key) what was read before stays in use.
        """
        seen = self._signature()
        if seen == self._seen and not force:
            return False
        self._seen = seen
        try:
            self.context, self.expires = self._read()
        except BadRequest as error:
            self.failures += 1
            _log.error("the certificate was not renewed: %s", error.message)
            return False
        _log.info("the certificate %s was read again", self._certificate)
        return True

    def _signature(self) -> Signature:
        found: list[int] = []
        for path in (self._certificate, self._key):
            try:
                state = path.stat()
            except OSError:
                found.append(-1)
            else:
                found += (state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size)
        return tuple(found)

    def _read(self) -> tuple[ssl.SSLContext, float]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        for path, name in ((self._certificate, "tls_certificate"), (self._key, "tls_key")):
            try:
                path.read_bytes()
            except OSError as error:
                raise BadRequest(f"{path} cannot be read: {error.strerror}.", param=f"gateway.{name}") from None
        try:
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
            chain = x509.load_pem_x509_certificates(self._certificate.read_bytes())
        except (ssl.SSLError, OSError, ValueError) as error:
            raise BadRequest(
                f"{self._certificate} and {self._key} are no certificate and its key: {error}.",
                param="gateway.tls_certificate",
            ) from None
        return context, min(entry.not_valid_after_utc.timestamp() for entry in chain)


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one that is not, readable by its owner alone")
