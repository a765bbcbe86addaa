"""What every engine answers, whatever its model does: which model it is, whether it is well, what it counted."""

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import unquote

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from penstock.core.errors import BadRequest, MethodNotAllowed, NotFound
from penstock.core.exposition import Registry
from penstock.engine.folder import ModelFolder
from penstock.net.reply import Reply
from penstock.net.request import Request

JSON = [(b"content-type", b"application/json")]

Endpoint = Callable[[Request, Reply], Awaitable[None]]


class Face:
    """Routes of one engine.

    Args:
        name: what the model is called.
        strict: refuse requests for a model of another name.
        ready: whether requests are taken now.
        posts: what answers a POST, by its path.
        worker: process id of what computes, 0 while there is none; None if that is this process.
        refused: paths of the OpenAI API that this kind of model cannot answer, with the reason.

    Attributes:
        draining: `/readyz` says no.
    """

    def __init__(
        self,
        folder: ModelFolder,
        *,
        name: str,
        strict: bool,
        ready: Callable[[], bool],
        collector: Collector,
        posts: Mapping[str, Endpoint],
        refused: Mapping[str, str],
        worker: Callable[[], int] | None = None,
    ) -> None:
        self.draining = False
        self.name = name
        self._folder = folder
        self._strict = strict
        self._ready = ready
        self._posts = posts
        self._refused = refused
        self._registry = Registry()
        self._registry.register(collector)
        ProcessCollector(registry=self._registry)
        if worker is not None:
            ProcessCollector("penstock_engine_worker", pid=worker, registry=self._registry)

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answers one request.

        Raises:
            PenstockError: when it is refused or fails before the reply's first byte.
        """
        path = request.path
        endpoint = self._posts.get(path)
        if endpoint is not None:
            _allow(request, "POST")
            await endpoint(request, reply)
            return
        if path in self._refused:
            raise BadRequest(f"The model {self.name!r} {self._refused[path]}.", code="unsupported_operation")
        _allow(request, "GET", "HEAD")
        if path == "/v1/models":
            reply.send(200, JSON, msgspec.json.encode({"object": "list", "data": [self._model()]}))
        elif path.startswith("/v1/models/"):
            self.check_model(unquote(path.removeprefix("/v1/models/")))
            reply.send(200, JSON, msgspec.json.encode(self._model()))
        elif path == "/healthz":
            reply.send(200, JSON, b'{"status":"ok"}')
        elif path == "/readyz":
            ready = self._ready() and not self.draining
            reply.send(200 if ready else 503, JSON, b'{"ready":true}' if ready else b'{"ready":false}')
        elif path == "/metrics":
            body, kind = exposition(self._registry, request.headers.get(b"accept", b""))
            reply.send(200, [(b"content-type", kind)], body)
        else:
            raise NotFound(f"There is no {path} here.")

    def check_model(self, name: str) -> None:
        """Raises `NotFound` if requests for the model `name` are not answered here."""
        if self._strict and name != self.name:
            raise NotFound(
                f"The model {name!r} does not exist here; this engine serves {self.name!r}.",
                code="model_not_found",
                param="model",
            )

    def _model(self) -> dict[str, object]:
        return {
            "id": self.name,
            "object": "model",
            "created": self._folder.created,
            "owned_by": "penstock",
            "max_model_len": self._folder.context,
        }


def exposition(registry: CollectorRegistry, accept: bytes) -> tuple[bytes, bytes]:
    """The metrics in the format that a scraper with this `accept` reads, and its content type.

    The client library's own choice would write underscores for the colons in vLLM's names.
    """
    if b"application/openmetrics-text" in accept:
        text = openmetrics.generate_latest(registry, escaping=openmetrics.ALLOWUTF8)  # type: ignore[no-untyped-call]
        return text, openmetrics.CONTENT_TYPE_LATEST.encode()
    return generate_latest(registry), CONTENT_TYPE_LATEST.encode()


def _allow(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise MethodNotAllowed(f"{request.path} takes {methods[0]}, not {request.method}.")
