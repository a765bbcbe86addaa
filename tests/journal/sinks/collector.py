"""A collector of traces: OTLP over HTTP and gRPC, and Zipkin, strict about both. Repeats have to be equal to the first."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from penstock.core.exchange import Exchange
from penstock.journal.spans import spans_of
from penstock.net.server import Reply, Request, Server, ServerLimits


class Collector:
    """`fault` is asked before each request: a status, `silent` (taken, but nobody hears), or nothing. Spans of `poison` are refused."""

    def __init__(self) -> None:
        self.spans: dict[str, Any] = {}  # by id
        self.requests = 0
        self.repeats = 0
        self.headers: list[dict[bytes, bytes]] = []
        self.poison: set[str] = set()
        self.partial = False  # refuse by a partial success
        self.fault: Callable[[], int | str | None] = lambda: None
        self.server = Server(self.handle, limits=ServerLimits(max_body_bytes=1 << 26))

    async def start(self, port: int = 0) -> str:
        await self.server.start("127.0.0.1", port)
        return f"http://127.0.0.1:{self.server.port}"

    async def stop(self) -> None:
        await self.server.drain(0.2)

    def add(self, spans: dict[str, Any]) -> bool:
        """Keep `spans`, unless one of them is poison."""
        self.requests += 1
        if self.poison & spans.keys():
            return False
        for name, span in spans.items():
            if name in self.spans:
                assert self.spans[name] == span, "a repeat that differs"
                self.repeats += 1
            self.spans[name] = span
        return True

    async def handle(self, request: Request, reply: Reply) -> None:
        self.headers.append(dict(request.headers))
        fault = self.fault()
        if isinstance(fault, int):
            reply.send(fault, ((b"retry-after", b"0"),), b"later")
            return
        body = bytes(request.body)
        if request.header(b"content-encoding") == b"gzip":
            body = gzip.decompress(body)
        if request.path == "/v1/traces":
            assert request.header(b"content-type") == b"application/x-protobuf"
            response = self.export(ExportTraceServiceRequest.FromString(body))
            taken, answer, kind = response is not None, b"", b"application/x-protobuf"
            if response is not None:
                answer = response.SerializeToString()
            status = 200
        else:
            assert request.path == "/api/v2/spans"
            assert request.header(b"content-type") == b"application/json"
            taken = self.add({span["id"]: span for span in json.loads(body)})
            answer, kind, status = b"", b"text/plain", 202
        if fault == "silent":
            reply.abort()
        else:
            reply.send(status if taken else 400, ((b"content-type", kind),), answer)

    def export(self, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse | None:
        """The answer; None if all is refused."""
        (of_worker,) = request.resource_spans
        assert {a.key for a in of_worker.resource.attributes} >= {"service.name", "service.instance.id"}
        spans = {span.span_id.hex(): span for scope in of_worker.scope_spans for span in scope.spans}
        assert all(len(span.trace_id) == 16 and len(span.span_id) == 8 for span in spans.values())
        response = ExportTraceServiceResponse()
        if not self.add(spans):
            if not self.partial:
                return None
            response.partial_success.rejected_spans = 1
            response.partial_success.error_message = "poison"
        return response


class GrpcCollector(TraceServiceServicer):
    """The same over gRPC."""

    def __init__(self) -> None:
        self.kept = Collector()
        self.codes: list[grpc.StatusCode] = []
        self.metadata: dict[str, str | bytes] = {}
        self._server = grpc.aio.server()
        add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]

    async def start(self, port: int = 0) -> str:
        port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        await self._server.start()
        return f"grpc://127.0.0.1:{port}"

    async def stop(self) -> None:
        await self._server.stop(0)

    async def Export(  # noqa: N802 - the protocol's name
        self, request: ExportTraceServiceRequest, context: Any
    ) -> ExportTraceServiceResponse:
        self.metadata = dict(context.invocation_metadata())
        if self.codes:
            await context.abort(self.codes.pop(0), "as told")
        response = self.kept.export(request)
        if response is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "poison")
        assert response is not None
        return response


def span_ids(exchanges: list[Exchange]) -> set[str]:
    """What a collector must hold of them."""
    return {span.id.hex() for exchange in exchanges for span in spans_of(exchange)}
