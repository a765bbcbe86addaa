"""The gRPC process, from its first socket to its last reply."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

import grpc
import grpc.aio

from penstock.core.errors import Unavailable
from penstock.core.settings import GatewaySettings
from penstock.gateway.grpc.service import Service
from penstock.gateway.grpc.workers import Workers
from penstock.net.certificate import Certificate
from penstock.net.client import Client
from penstock.net.pulse import Pulse

_log = logging.getLogger("penstock.grpc")
_OVERHEAD_BYTES = 65536  # of a message beside the texts that it holds
_ANSWER_BYTES = 67108864


def server_credentials(certificate: Path, key: Path) -> grpc.ServerCredentials:
    """What connections that begin are shown: the files as they are then, or, while they are not right, as they were.

    Raises:
        BadRequest: if they are not right now.
    """
    held = Certificate(certificate, key)

    def configuration() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(key.read_bytes(), certificate.read_bytes())])

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        return configuration() if held.renew() else None

    # None stands for what was shown before, which the type does not tell.
    return grpc.dynamic_ssl_server_credentials(configuration(), renewed)  # type: ignore[arg-type]


class GrpcServer:
    """Serves the Open Inference Protocol for the gateway workers of the data folder `data`.

    Attributes:
        port: where it listens.
    """

    def __init__(self, settings: GatewaySettings, data: Path) -> None:
        """Nothing is listened on before `start`.

        Raises:
            BadRequest: if certificate and key are not right.
        """
        self._settings = settings
        folder = data / "run"
        folder.mkdir(parents=True, exist_ok=True)
        self._client = Client(max_connections=settings.max_connections)
        self._workers = Workers(folder, self._client)
        self._pulse = Pulse(folder / "grpc.pulse")
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_body_bytes + _OVERHEAD_BYTES),
                ("grpc.max_send_message_length", _ANSWER_BYTES + _OVERHEAD_BYTES),
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=settings.max_connections,
        )
        certificate, key = Path(settings.tls_certificate), Path(settings.tls_key)
        self._credentials = server_credentials(certificate, key) if settings.tls_certificate else None
        self._server.add_generic_rpc_handlers(Service(self._workers).handlers())
        self.port = 0

    async def start(self) -> None:
        """Listens.

        Raises:
            Unavailable: if the address cannot be had.
        """
        host, port = self._settings.host, self._settings.grpc_port
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, self._credentials)
        except RuntimeError:
            raise Unavailable(
                f"gRPC cannot listen on {host}:{port}.", hint="Stop what listens there, or give another --grpc-port."
            ) from None
        await self._server.start()
        await self._pulse.start()

    async def stop(self) -> None:
        """Drains: what is in flight is answered, then everything closes."""
        await self._server.stop(self._settings.drain_s)
        await self._client.close()
        self._workers.close()
        await self._pulse.stop()


async def serve_grpc(*, settings: GatewaySettings, data: Path) -> None:
    """Serves until SIGTERM or SIGINT, then drains for up to `settings.drain_s` and returns.

    Raises:
        Unavailable: if the address cannot be had.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = GrpcServer(settings, data)
    await server.start()
    _log.info("answers at %s:%d", settings.host, server.port)
    await stopped.wait()
    await server.stop()
