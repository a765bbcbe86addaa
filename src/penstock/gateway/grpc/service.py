"""The methods of the Open Inference Protocol: each question goes to a gateway worker as the HTTP request that asks the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NoReturn
from urllib.parse import quote

import grpc
import grpc.aio

from penstock import __version__
from penstock.core.errors import BadRequest, PenstockError, UpstreamFailed
from penstock.gateway.grpc import inference_pb2 as pb
from penstock.gateway.grpc.answer import (
    error_of,
    failed_answer,
    last_of_answer,
    piece_of_answer,
    usage_of_piece,
    whole_answer,
)
from penstock.gateway.grpc.ask import Question, read_question
from penstock.gateway.grpc.status import Failure, failure_of, named_failure, passed_metadata, told_failure
from penstock.gateway.grpc.tensors import Scalar
from penstock.gateway.grpc.workers import Workers
from penstock.net.client import Response
from penstock.wire.sse import EventSplitter, event_data

Context = grpc.aio.ServicerContext[Any, Any]
_PASSED_ON = frozenset(  # of a call's metadata, to the gateway
    {"authorization", "x-penstock-session", "traceparent", "tracestate", "baggage", "x-request-id"}
)
_SERVING, _NOT_SERVING = b"\x08\x01", b"\x08\x02"  # a grpc.health.v1.HealthCheckResponse
_INPUTS = (("text_input", [-1]), ("messages", [-1]))
_OUTPUTS = (("text_output", [-1]), ("finish_reason", [-1]), ("response", [1]))


class Service:
    """Answers calls by asking `workers`. A call that is cancelled, or whose deadline passes, gives its request up, and so ends it everywhere."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """What a server is given."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler

        def method(handler: Any, behavior: Any, asked: Any, answered: Any) -> grpc.RpcMethodHandler[Any, Any]:
            made: grpc.RpcMethodHandler[Any, Any] = handler(
                behavior, request_deserializer=asked.FromString, response_serializer=answered.SerializeToString
            )
            return made

        inference = {
            "ServerLive": method(unary, self.live, pb.ServerLiveRequest, pb.ServerLiveResponse),
            "ServerReady": method(unary, self.ready, pb.ServerReadyRequest, pb.ServerReadyResponse),
            "ModelReady": method(unary, self.model_ready, pb.ModelReadyRequest, pb.ModelReadyResponse),
            "ServerMetadata": method(unary, self.server_metadata, pb.ServerMetadataRequest, pb.ServerMetadataResponse),
            "ModelMetadata": method(unary, self.model_metadata, pb.ModelMetadataRequest, pb.ModelMetadataResponse),
            "ModelInfer": method(unary, self.infer, pb.ModelInferRequest, pb.ModelInferResponse),
            "ModelStreamInfer": method(stream, self.stream, pb.ModelInferRequest, pb.ModelStreamInferResponse),
        }
        health: dict[str, grpc.RpcMethodHandler[Any, Any]] = {"Check": unary(self.health)}
        return (
            grpc.method_handlers_generic_handler("inference.GRPCInferenceService", inference),
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),
        )

    # -- the server --------------------------------------------------------------------------------------------------

    async def live(self, _request: pb.ServerLiveRequest, _context: Context) -> pb.ServerLiveResponse:
        """The process answers."""
        return pb.ServerLiveResponse(live=True)

    async def ready(self, _request: pb.ServerReadyRequest, _context: Context) -> pb.ServerReadyResponse:
        """A gateway worker answers requests for models."""
        return pb.ServerReadyResponse(ready=await self._is_ready())

    async def health(self, _request: bytes, _context: Context) -> bytes:
        """The standard health check, for those who probe: as `ready`."""
        return _SERVING if await self._is_ready() else _NOT_SERVING

    async def server_metadata(self, _request: pb.ServerMetadataRequest, _context: Context) -> pb.ServerMetadataResponse:
        """Name and version."""
        return pb.ServerMetadataResponse(name="penstock", version=__version__)

    async def _is_ready(self) -> bool:
        try:
            response = await self._workers.ask(b"GET", b"/readyz", ())
            await response.read()
        except PenstockError:
            return False
        return response.status == 200

    # -- models ------------------------------------------------------------------------------------------------------

    async def model_ready(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        """The key may use the model, and it has a replica."""
        body = await self._model(request.name, context)
        return pb.ModelReadyResponse(ready=b'"ready":true' in body)

    async def model_metadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        """The tensors, which are the same for every model; which version answers is told with each answer."""
        await self._model(request.name, context)
        tensor = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name=request.name,
            platform="openai",
            inputs=[tensor(name=name, datatype="BYTES", shape=shape) for name, shape in _INPUTS],
            outputs=[tensor(name=name, datatype="BYTES", shape=shape) for name, shape in _OUTPUTS],
        )

    async def _model(self, name: str, context: Context) -> bytes:
        path = b"/v1/models/%b" % quote(name, safe="").encode()
        try:
            if not name:
                raise BadRequest("The request names no model.", param="name")
            response = await self._workers.ask(b"GET", path, _headers(context))
            body = await response.read()
        except PenstockError as error:
            await _refuse(context, failure_of(error))
        if response.status != 200:
            await _refuse(context, told_failure(response.status, response.headers, body), response)
        return body

    # -- inference ---------------------------------------------------------------------------------------------------

    async def infer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        """One question, one whole answer."""
        try:
            question = read_question(request, streams=False)
            response = await self._ask(question, context)
            try:
                body = await response.read()
            finally:
                response.abort()
        except PenstockError as error:
            await _refuse(context, failure_of(error))
        if response.status != 200:
            await _refuse(context, told_failure(response.status, response.headers, body), response)
        context.set_trailing_metadata(passed_metadata(response.headers))
        return whole_answer(question, response.headers, body)

    async def stream(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Questions one after the other; one that fails is told as such, and the next one answered.

        For a bad key the call ends; for a client that sends `triton_grpc_error: true` it ends at any failure.
        """
        strict = _metadata(context).get("triton_grpc_error") == "true"
        async for request in requests:
            try:
                async for answer in self._answers(request, context):
                    yield answer
            except _FailedError as failed:
                if strict or failed.failure.http_status == 401:
                    await _refuse(context, failed.failure, failed.response)
                yield failed_answer(request.id, failed.failure)

    async def _answers(
        self, request: pb.ModelInferRequest, context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        response: Response | None = None
        try:
            question = read_question(request, streams=True)
            response = await self._ask(question, context)
            context.set_trailing_metadata(passed_metadata(response.headers))
            if response.status != 200:
                body = await response.read()
                raise _FailedError(told_failure(response.status, response.headers, body), response)
            if question.stream:
                async for answer in _pieces(question, response):
                    yield answer
            else:
                whole = whole_answer(question, response.headers, await response.read())
                yield pb.ModelStreamInferResponse(infer_response=whole)
                yield last_of_answer(question, response.headers, {})
        except PenstockError as error:
            raise _FailedError(failure_of(error), response) from None
        except (ValueError, RecursionError):
            garbage = UpstreamFailed("The engine's stream holds what is no event.", code="upstream_garbage")
            raise _FailedError(failure_of(garbage), response) from None
        finally:
            if response is not None:
                response.abort()

    async def _ask(self, question: Question, context: Context) -> Response:
        headers = [(b"content-type", b"application/json"), *_headers(context)]
        return await self._workers.ask(b"POST", question.path, headers, question.body)


class _FailedError(Exception):
    """A question of a stream has failed."""

    def __init__(self, failure: Failure, response: Response | None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.response = response


async def _pieces(question: Question, response: Response) -> AsyncIterator[pb.ModelStreamInferResponse]:
    """The events of a stream as responses, up to its end.

    Raises:
        UpstreamFailed: if it ends before `[DONE]`.
    """
    events = EventSplitter()
    usage: dict[str, Scalar] = {}
    while piece := await response.piece():
        for event in events.feed(piece):
            payload = event_data(event)
            if payload == b"[DONE]":
                yield last_of_answer(question, response.headers, usage)
                return
            if not payload:
                continue
            error = error_of(payload)
            if error is not None:
                raise _FailedError(named_failure(502, error), response)
            usage = usage_of_piece(payload) or usage
            answer = piece_of_answer(question, response.headers, payload)
            if answer is not None:
                yield answer
    raise UpstreamFailed("The gateway ended its stream before it was complete.", code="upstream_truncated")


async def _refuse(context: Context, failure: Failure, response: Response | None = None) -> NoReturn:
    passed = passed_metadata(response.headers) if response is not None else ()
    await context.abort(failure.status, failure.message, (*failure.metadata(), *passed))
    raise AssertionError("an aborted call does not go on")


def _metadata(context: Context) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in context.invocation_metadata() or ():
        found[name] = value if isinstance(value, str) else value.decode("latin-1")
    return found


def _headers(context: Context) -> list[tuple[bytes, bytes]]:
    """What the gateway is told of a call's metadata.

    Raises:
        BadRequest: if a value holds what no header field may hold.
    """
    headers: list[tuple[bytes, bytes]] = []
    for name, value in _metadata(context).items():
        if name in _PASSED_ON:
            if not (value.isascii() and value.isprintable()):
                raise BadRequest(f"The metadata {name!r} hold what is not printable.", param=name)
            headers.append((name.encode(), value.encode()))
    return headers
