"""Spans in OpenTelemetry's protocol, over gRPC."""

from collections.abc import Sequence
from urllib.parse import urlsplit

import grpc
import grpc.aio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from penstock.core.errors import BadRequest, Unavailable, UpstreamFailed
from penstock.core.exchange import Exchange
from penstock.journal.otlp import encode, refusal

_TIMEOUT_S = 30.0
_REFUSED = frozenset({grpc.StatusCode.INVALID_ARGUMENT})


class OtlpGrpc:
    """A collector's trace service at `grpc://HOST:PORT`, or `grpcs://` through TLS."""

    name = "otlp"

    def __init__(self, url: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        """Without a connection yet.

        Raises:
            BadRequest: if `url` is no such address.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"grpc", "grpcs"} or not parts.hostname or parts.path.strip("/"):
            raise BadRequest(f"{url!r} is no collector's address: write grpc://host:4317.", param="ship.otlp_url")
        self._target = parts.netloc if ":" in parts.netloc.rpartition("]")[2] else f"{parts.netloc}:4317"
        self._metadata = headers
        # Another try right after one that failed: the shipper has pauses of its own.
        options = (("grpc.max_reconnect_backoff_ms", 5000),)
        self._channel = (
            grpc.aio.secure_channel(self._target, grpc.ssl_channel_credentials(), options)
            if parts.scheme == "grpcs"
            else grpc.aio.insecure_channel(self._target, options, grpc.Compression.Gzip)
        )
        self._stub = TraceServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def offer(self, worker: str, exchanges: Sequence[Exchange]) -> str:
        """Export them.

        Raises:
            Unavailable: if the collector is away or too busy.
            UpstreamFailed: if it does not serve this caller.
        """
        request = encode(worker, exchanges)
        try:
            response = await self._stub.Export(
                request, timeout=_TIMEOUT_S, metadata=self._metadata, compression=grpc.Compression.Gzip
            )
        except grpc.aio.AioRpcError as error:
            reason = f"The collector at {self._target} answered {error.code().name}: {(error.details() or '')[:300]}"
            if error.code() in _REFUSED:
                return reason
            if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}:
                raise Unavailable(reason) from None
            raise UpstreamFailed(reason) from None
        return refusal(response)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()
