"""Paths and methods to what answers them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from penstock.core.errors import MethodNotAllowed, NotFound, PenstockError, Unavailable
from penstock.gateway.authenticate import authenticate
from penstock.gateway.call import Call, Operation
from penstock.gateway.decode import check_content_type
from penstock.gateway.gateway import Gateway
from penstock.gateway.index import Caller
from penstock.gateway.metrics import OPENMETRICS, PLAIN, wants_openmetrics
from penstock.gateway.models import list_models, show_model
from penstock.gateway.observe import Answered, Kind, Told, accepted, decode_observation, observation
from penstock.gateway.openapi import document
from penstock.gateway.ratelimit import limit_lines
from penstock.gateway.settle import hold
from penstock.gateway.trace import name_line
from penstock.gateway.walk import walk
from penstock.guard.masking import usual_masker
from penstock.journal.telling import seal_texts
from penstock.net.server import Reply, Request
from penstock.wire.openai import error_body, error_headers

_JSON = [(b"content-type", b"application/json")]
_MODELS = "/v1/models/"

Endpoint = Callable[[Request, Reply], Awaitable[None]]


class App:
    """The handler of the gateway's server.

    Attributes:
        draining: `/readyz` says no.
        collect: what `/metrics` answers, in OpenMetrics' format or not; by default this worker's own.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.draining = False
        self.collect: Callable[[bool], Awaitable[bytes]] = self._own_metrics
        self._answered = Answered()
        self._posts: dict[str, Endpoint] = {
            "/v1/chat/completions": self.chat,
            "/v1/completions": self.completions,
            "/v1/embeddings": self.embeddings,
            "/v1/responses": self.responses,
            "/v1/feedback": self._observe("feedback"),
            "/v1/events": self._observe("event"),
            "/v1/reports": self._observe("report"),
            "/v1/preferences": self._observe("preference"),
        }
        self._gets: dict[str, Endpoint] = {
            "/v1/models": self.models,
            "/healthz": self.healthz,
            "/readyz": self.readyz,
            "/metrics": self.metrics,
            "/openapi.json": self.openapi,
        }

    def __call__(self, request: Request, reply: Reply) -> Awaitable[None]:
        """Answers one request."""
        if request.method == "POST":
            endpoint = self._posts.get(request.path)
            if endpoint is not None:
                return endpoint(request, reply)
        return self._other(request, reply)

    def chat(self, request: Request, reply: Reply) -> Awaitable[None]:
        """`POST /v1/chat/completions`."""
        return self._walk(request, reply, "chat", b"/v1/chat/completions")

    def completions(self, request: Request, reply: Reply) -> Awaitable[None]:
        """`POST /v1/completions`."""
        return self._walk(request, reply, "completions", b"/v1/completions")

    def embeddings(self, request: Request, reply: Reply) -> Awaitable[None]:
        """`POST /v1/embeddings`."""
        return self._walk(request, reply, "embeddings", b"/v1/embeddings")

    def responses(self, request: Request, reply: Reply) -> Awaitable[None]:
        """`POST /v1/responses`."""
        return self._walk(request, reply, "responses", b"/v1/chat/completions")

    def _walk(self, request: Request, reply: Reply, operation: Operation, path: bytes) -> Awaitable[None]:
        return walk(Call(self.gateway, request, reply, operation, path, time.time()))

    async def models(self, request: Request, reply: Reply) -> None:
        """`GET /v1/models` and `GET /v1/models/NAME`."""
        caller, lines = await self._enter(request)
        if request.path == "/v1/models":
            body = list_models(self.gateway.index, caller)
        else:
            body = show_model(self.gateway.index, caller, unquote(request.path.removeprefix(_MODELS)))
        reply.send(200, _JSON, body, lines)

    async def healthz(self, _request: Request, reply: Reply) -> None:
        """`GET /healthz`: the process lives."""
        reply.send(200, _JSON, b'{"status":"ok"}')

    async def readyz(self, _request: Request, reply: Reply) -> None:
        """`GET /readyz`: requests can be answered."""
        index = self.gateway.index
        ready = not self.draining and index.generation > 0 and index.ready()
        state = "ready" if ready else "draining" if self.draining else "waiting for a Snapshot with a replica"
        body = b'{"status":"%b","generation":%d,"worker":"%b"}' % (
            state.encode(),
            index.generation,
            self.gateway.worker.encode(),
        )
        reply.send(200 if ready else 503, _JSON, body)

    async def metrics(self, request: Request, reply: Reply) -> None:
        """`GET /metrics`: of all workers of this host, with exemplars if OpenMetrics is asked for."""
        openmetrics = wants_openmetrics(request.header(b"accept"))
        body = await self.collect(openmetrics)
        reply.send(200, [(b"content-type", OPENMETRICS if openmetrics else PLAIN)], body)

    async def openapi(self, _request: Request, reply: Reply) -> None:
        """`GET /openapi.json`."""
        reply.send(200, _JSON, document())

    async def _own_metrics(self, openmetrics: bool) -> bytes:
        return self.gateway.meters.exposition(openmetrics)

    async def _other(self, request: Request, reply: Reply) -> None:
        path, method = request.path, request.method
        gateway = self.gateway
        try:
            endpoint = self._gets.get(path)
            if endpoint is None and path.startswith(_MODELS) and len(path) > len(_MODELS):
                endpoint = self.models
            if endpoint is None:
                if path in self._posts:
                    raise MethodNotAllowed(f"{method} {path} is not done: use POST.")
                raise NotFound(
                    f"There is no {method} {path} here. GET /openapi.json tells what is.", code="path_not_found"
                )
            if method not in {"GET", "HEAD"}:
                raise MethodNotAllowed(f"{method} {path} is not done: use GET.")
            await endpoint(request, reply)
        except PenstockError as error:
            gateway.meters.error(error.code)
            headers = error_headers(error)
            if isinstance(error, MethodNotAllowed):
                headers.append((b"allow", b"POST" if path in self._posts else b"GET, HEAD"))
            headers.append((b"x-penstock-request-id", gateway.new_id(time.time()).encode()))
            reply.send(error.status, headers, error_body(error), name_line(request.headers))

    async def _enter(self, request: Request) -> tuple[Caller, bytes]:
        gateway = self.gateway
        now = time.time()
        caller = authenticate(gateway.index, request.header(b"authorization"), now)
        lines = b"x-penstock-request-id: %b\r\n%b" % (gateway.new_id(now).encode(), name_line(request.headers))
        if caller.limited:
            holder = caller.holder or hold(gateway.limiter, caller)
            if not gateway.limiter.try_count(holder, now := time.monotonic()):
                await gateway.limiter.count(holder, now, caller.down)
            lines += limit_lines(holder, now)
        return caller, lines

    def _observe(self, kind: Kind) -> Endpoint:
        async def endpoint(request: Request, reply: Reply) -> None:
            gateway = self.gateway
            try:
                caller, lines = await self._enter(request)
                check_content_type(request.header(b"content-type"))
                told = decode_observation(kind, request.body)
                answer = await self._keep(kind, told, caller)
            except PenstockError as error:
                gateway.meters.error(error.code)
                name = gateway.new_id(time.time())
                headers = [*error_headers(error), (b"x-penstock-request-id", name.encode())]
                reply.send(error.status, headers, error_body(error), name_line(request.headers))
                return
            reply.send(200, _JSON, answer, lines)

        return endpoint

    async def _keep(self, kind: Kind, told: Told, caller: Caller) -> bytes:
        """The answer to what was told, which is in the kernel then."""
        gateway, tenant = self.gateway, caller.tenant.name
        answer = self._answered.get(tenant, kind, told.id)
        if answer is not None:
            if not await gateway.journal.committed():
                raise Unavailable("The journal cannot be written: this was not kept. Tell it again.", retry_after=1.0)
            return answer
        now = time.time()
        answer = accepted(told, kind, now)
        self._answered.put(tenant, kind, told.id, answer)
        rules = gateway.index.rules_for(caller.tenant.policy)
        masker = rules.masker if rules is not None else usual_masker()
        record = observation(kind, told, caller, now, gateway.subject_key, masker)
        if record.text or record.corrected:
            sealed = seal_texts(gateway.vault, record, masked=masker is not None) if gateway.vault is not None else None
            if sealed is None:
                self._answered.forget(tenant, kind, told.id)
                raise Unavailable("The text cannot be encrypted: this was not kept. Tell it again.", retry_after=1.0)
            record = sealed
        gateway.journal.append(record)
        if not await gateway.journal.committed():
            self._answered.forget(tenant, kind, told.id)
            raise Unavailable("The journal cannot be written: this was not kept. Tell it again.", retry_after=1.0)
        return answer
