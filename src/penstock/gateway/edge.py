"""Where clients come in: the public address, its certificate, and the gauges of both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.core.errors import BadRequest, Unavailable
from penstock.core.settings import GatewaySettings
from penstock.gateway.metrics import Meters
from penstock.net.limits import ServerLimits
from penstock.net.server import Server

if TYPE_CHECKING:
    from penstock.net.certificate import Certificate

_LOOK_S = 1.0  # between two looks at the certificate's files
_OWN_DESCRIPTORS = 64  # journal, ledger, control, event loop
_LEAST_CONNECTIONS = 16

Readings = Iterator[tuple[tuple[str, ...], float]]


def server_limits(settings: GatewaySettings, descriptors: int) -> ServerLimits:
    """The bounds of the public server, with no more connections than `descriptors` (open files) allow: each may need two."""
    refused = max(8, min(512, descriptors // 32))
    room = (descriptors - _OWN_DESCRIPTORS - refused) // 2
    return ServerLimits(
        max_header_bytes=settings.max_header_bytes,
        max_body_bytes=settings.max_body_bytes,
        header_timeout_s=settings.header_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
        max_connections=min(settings.max_connections, max(_LEAST_CONNECTIONS, room)),
        max_refused=refused,
    )


class Edge:
    """The public listener of one worker. With a certificate it speaks TLS, and nothing else, and follows the certificate's files."""

    def __init__(self, settings: GatewaySettings, server: Server, meters: Meters) -> None:
        """Reads the certificate, if the settings name one.

        Raises:
            BadRequest: if only one of certificate and key is set, or they cannot be used.
        """
        self._settings = settings
        self._server = server
        self._certificate = read_certificate(settings)
        self._timer: asyncio.TimerHandle | None = None
        meters.gauge("penstock_connections", lambda: iter([((), float(server.connections))]))
        meters.gauge("penstock_edge_refusals_total", self._refusals)
        certificate = self._certificate
        meters.gauge("penstock_tls_failures_total", lambda: iter([((), float(server.tls_failures))]))
        if certificate is not None:
            meters.gauge(
                "penstock_tls_certificate_expires_timestamp_seconds", lambda: iter([((), certificate.expires)])
            )
            meters.gauge("penstock_tls_renewal_failures_total", lambda: iter([((), float(certificate.failures))]))

    @property
    def sealed(self) -> bool:
        """Whether clients speak TLS."""
        return self._certificate is not None

    async def start(self) -> None:
        """Listens.

        Raises:
            Unavailable: if the address cannot be had.
        """
        settings = self._settings
        try:
            await self._server.start(
                settings.host, settings.port, reuse_port=settings.workers > 1, certificate=self._certificate
            )
        except OSError as error:
            raise Unavailable(
                f"The gateway cannot listen on {settings.host}:{settings.port}: {error.strerror or error}.",
                hint="Stop what listens there, or give another --gateway-port.",
            ) from None
        if self._certificate is not None:
            self._look()

    def renew(self) -> None:
        """Reads the certificate's files again now."""
        if self._certificate is not None:
            self._certificate.renew(force=True)

    def stop(self) -> None:
        """Looks at the certificate's files no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if self._certificate is not None:
            self._certificate.renew()
        self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _refusals(self) -> Readings:
        for status, count in sorted(self._server.refusals.items()):
            yield (str(status),), float(count)


def read_certificate(settings: GatewaySettings) -> Certificate | None:
    """The certificate that the settings name; None if they name none.

    Raises:
        BadRequest: if only one of certificate and key is set, or they cannot be used.
    """
    if not settings.tls_certificate and not settings.tls_key:
        return None
    if not settings.tls_certificate or not settings.tls_key:
        missing = "tls_key" if settings.tls_certificate else "tls_certificate"
        raise BadRequest(
            f"A certificate and its key go together: gateway.{missing} is not set.", param=f"gateway.{missing}"
        )
    from penstock.net.certificate import Certificate  # a worker without TLS need not load what reads certificates

    return Certificate(Path(settings.tls_certificate), Path(settings.tls_key))
