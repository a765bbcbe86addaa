"""What goes another way than most requests, each once and more: so that the series which tell of it are there to be looked at."""

import http.client
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from tests.ports import free_ports
from tests.system.program import penstock
from tests.system.starter import Up
from tests.system.test_kill import mock_engine
from tests.system.waiting import until

MODEL = {"model": "support-bot"}
TURNS = [
    {"role": "user", "content": "I want to know all about garden chairs."},
    {"role": "assistant", "content": "Which?"},
]


def documents(mock: str, nobody: str) -> list[dict[str, Any]]:
    """Pools and routes: one that falls back, a cascade, one that trims, one that coalesces, one that resumes, one without room."""

    def pool(name: str, url: str, **more: Any) -> dict[str, Any]:
        return {"kind": "Pool", "name": name, "spec": {"adopt": [url], **more}}

    def route(name: str, to: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"kind": "Route", "name": name, "spec": {"to": [to], **more}}

    return [
        pool("odd-nobody", nobody, connect_timeout_s=0.5),
        pool("odd-mock", mock, dialect="vllm"),
        pool("odd-narrow", mock, max_in_flight=1, max_waiting=0),
        route("odd-fallback", {"pool": "odd-nobody"}, fallback=["support-bot@production"], attempts=1),
        route("odd-cascade", MODEL, cascade={"first": MODEL, "then": {"pool": "odd-mock"}, "min_mean_logprob": -50}),
        route("odd-trim", MODEL, trim={"budget_tokens": 60}),
        route("odd-coalesce", {"pool": "odd-mock"}, coalesce=True),
        route("odd-resume", {"pool": "odd-mock"}, resume=True),
        route("odd-narrow", {"pool": "odd-narrow"}),
    ]


def said(up: Up, key: str, model: str, content: str, **more: Any) -> int:
    """The status of one request; 0 if its stream broke."""
    body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 12, **more}
    request = urllib.request.Request(
        f"{up.gateway}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            reply.read()
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return 0


def together(count: int, ask: Callable[[], object]) -> None:
    """Asks so many times at once."""
    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


@contextmanager
def oddities(up: Up, call: Callable[..., Any], key: str) -> Iterator[Callable[[], None]]:
    """Gives what asks in all these ways, once; all of it is gone when the block ends."""
    with mock_engine(0.2) as mock:
        told = documents(mock, f"http://127.0.0.1:{free_ports(1)[0]}")
        call(up, "POST", "/apply", {"documents": told})
        for one in told:
            if one["kind"] == "Route" and one["name"] != "odd-narrow":
                name = one["name"]
                until(lambda name=name: True if said(up, key, name, "hello") == 200 else None, 60)  # type: ignore[misc]

        def ask() -> None:
            assert said(up, key, "odd-fallback", "hi") == 200
            assert said(up, key, "odd-cascade", "hi") == 200
            long = [*TURNS * 12, {"role": "user", "content": "Where is my order 4471902?"}]
            assert said(up, key, "odd-trim", "", messages=long) == 200
            together(4, lambda: said(up, key, "odd-coalesce", "the same", temperature=0))
            said(up, key, "odd-resume", "!truncate one two three four", stream=True)
            together(6, lambda: said(up, key, "odd-narrow", "one"))
            nonsense(up)

        try:
            yield ask
        finally:
            for one in reversed(told):
                call(up, "DELETE", f"/{one['kind'].lower()}s/{one['name']}")


def nonsense(up: Up) -> None:
    """A connection that speaks no HTTP."""
    parts = urlsplit(up.gateway)
    with socket.create_connection((parts.hostname, parts.port), 10) as client:
        client.sendall(b"NONSENSE\r\n\r\n")
        client.recv(4096)


def tell(up: Up, key: str, request: str) -> None:
    """An event, feedback and a report about a request."""
    words = (
        ("events", {"name": "conversion"}),
        ("feedback", {"rating": 1}),
        ("reports", {"reason": "wrong"}),
    )
    for path, body in words:
        request_ = urllib.request.Request(
            f"{up.gateway}/v1/{path}",
            data=json.dumps({"id": f"{path}-{request}", "request_id": request, **body}).encode(),
            headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
        )
        urllib.request.urlopen(request_, timeout=30).close()


def probed(up: Up, folder: str, prompts: str) -> dict[str, Any]:
    """What `penstock probe` finds of a version's folder."""
    return penstock(up, "probe", folder, "--prompts", prompts, "--data", str(up.data))
