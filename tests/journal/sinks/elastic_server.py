"""Elasticsearch as far as a shipper meets it, and stricter: what the real one would tolerate is refused as well.

Documents are kept by data stream and id. Templates and policies that were PUT are held to what documents bring.
"""

import gzip
import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from penstock.net.server import Reply, Request, Server, ServerLimits

JSON = ((b"content-type", b"application/json"), (b"x-elastic-product", b"Elasticsearch"))
ACTIONS = {"create", "index"}
KINDS: dict[str, Callable[[Any], bool]] = {
    "keyword": lambda v: isinstance(v, str),
    "constant_keyword": lambda v: isinstance(v, str),
    "match_only_text": lambda v: isinstance(v, str),
    "long": lambda v: isinstance(v, int) and not isinstance(v, bool) and abs(v) < 1 << 63,
    "double": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "boolean": lambda v: isinstance(v, bool),
    "date": lambda v: isinstance(v, str) and bool(datetime.fromisoformat(v)),
}


class Broken(Exception):
    """The request as a whole is wrong."""


class Elastic:
    """`fault` is asked before each bulk request: a status for the whole, `silent` (taken, but nobody hears), or nothing.

    `item` is asked for each new document: a status and type of an error, or nothing.
    """

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, dict[str, Any]]] = {}
        self.templates: dict[str, dict[str, Any]] = {}
        self.policies: dict[str, dict[str, Any]] = {}
        self.puts = 0
        self.bulks: list[int] = []  # documents of each request
        self.lines: list[bytes] = []  # of the bodies as they came
        self.repeats = 0
        self.authorizations: Counter[str] = Counter()
        self.most_bytes = 100_000_000
        self.fault: Callable[[], int | str | None] = lambda: None
        self.item: Callable[[str], tuple[int, str] | None] = lambda _: None
        self.server = Server(self.handle, limits=ServerLimits(max_body_bytes=1 << 27))

    async def start(self, port: int = 0) -> str:
        await self.server.start("127.0.0.1", port)
        return f"http://127.0.0.1:{self.server.port}"

    async def stop(self) -> None:
        await self.server.drain(0.2)

    def renew(self) -> None:
        """Fit to be started again; what it holds stays."""
        self.server = Server(self.handle, limits=self.server.limits)

    def ids(self, dataset: str = "exchange") -> list[str]:
        return sorted(self.documents.get(f"logs-penstock.{dataset}-default", {}))

    async def handle(self, request: Request, reply: Reply) -> None:
        self.authorizations[(request.header(b"authorization") or b"").decode()] += 1
        body = bytes(request.body)
        if request.header(b"content-encoding") == b"gzip":
            body = gzip.decompress(body)
        try:
            if request.path == "/_bulk":
                await self._bulk(request, body, reply)
            elif match := re.fullmatch(r"/_(ilm/policy|index_template)/([a-z]+)", request.path):
                self._definition(request.method, match[1], match[2], body, reply)
            else:
                reply.send(400, JSON, b'{"error":"no handler found for uri"}')
        except Broken as error:
            reply.send(
                400, JSON, msgspec.json.encode({"error": {"type": "illegal_argument_exception", "reason": str(error)}})
            )

    def _definition(self, method: str, kind: str, name: str, body: bytes, reply: Reply) -> None:
        held = self.policies if kind == "ilm/policy" else self.templates
        if method == "GET":
            if name not in held:
                reply.send(404, JSON, b'{"error":{"type":"resource_not_found_exception"},"status":404}')
            elif kind == "ilm/policy":
                reply.send(200, JSON, msgspec.json.encode({name: {"version": 1, **held[name]}}))
            else:
                told = {"index_templates": [{"name": name, "index_template": held[name]}]}
                reply.send(200, JSON, msgspec.json.encode(told))
            return
        document = msgspec.json.decode(body)
        if kind == "ilm/policy":
            if set(document) != {"policy"} or set(document["policy"]) - {"phases", "_meta", "deprecated"}:
                raise Broken("unknown field in a policy")
        else:
            known = {"index_patterns", "data_stream", "priority", "template", "composed_of", "version", "_meta"}
            if set(document) - known or "data_stream" not in document:
                raise Broken("unknown field in a template, or none for data streams")
            if document["template"]["settings"]["index"]["lifecycle"]["name"] not in self.policies:
                raise Broken("the policy does not exist")
            list(leaves(document["template"]["mappings"]["properties"]))
        held[name] = document
        self.puts += 1
        reply.send(200, JSON, b'{"acknowledged":true}')

    async def _bulk(self, request: Request, body: bytes, reply: Reply) -> None:
        kind = (request.header(b"content-type") or b"").decode()
        if request.method != "POST" and request.method != "PUT":
            raise Broken("method")
        if not re.fullmatch(r"application/(x-ndjson|vnd\.elasticsearch\+x-ndjson; ?compatible-with=\d+)", kind):
            reply.send(406, JSON, b'{"error":"Content-Type header is not supported","status":406}')
            return
        if len(body) > self.most_bytes:
            reply.send(413, JSON, b"")
            return
        fault = self.fault()
        if isinstance(fault, int):
            reply.send(fault, (*JSON, (b"retry-after", b"0")), b'{"error":{"type":"es_rejected_execution_exception"}}')
            return
        if not body.endswith(b"\n"):
            raise Broken("The bulk request must be terminated by a newline [\\n]")
        lines = body[:-1].split(b"\n")
        if len(lines) % 2:
            raise Broken("an action without its document")
        self.lines += lines
        items = [self._one(lines[n], lines[n + 1]) for n in range(0, len(lines), 2)]
        self.bulks.append(len(items))
        if fault == "silent":
            reply.abort()
            return
        errors = any("error" in next(iter(item.values())) for item in items)
        reply.send(200, JSON, msgspec.json.encode({"took": 1, "errors": errors, "items": items}))

    def _one(self, action: bytes, source: bytes) -> dict[str, Any]:
        told = msgspec.json.decode(action)
        if len(told) != 1 or not set(told) <= ACTIONS:
            raise Broken(f"Malformed action/metadata line: {action!r}")
        ((verb, where),) = told.items()
        if set(where) - {"_index", "_id"} or "_index" not in where:
            raise Broken(f"Action/metadata line contains an unknown parameter: {action!r}")
        stream, name = where["_index"], where["_id"]

        def answer(status: int, kind: str = "", reason: str = "") -> dict[str, Any]:
            result: dict[str, Any] = {"_index": f".ds-{stream}-000001", "_id": name, "status": status}
            if kind:
                result["error"] = {"type": kind, "reason": reason}
            return {verb: result}

        if verb != "create":
            return answer(400, "illegal_argument_exception", "only write ops with an op_type of create are allowed")
        template = next(
            (t for t in self.templates.values() if any(fnmatchcase(stream, p) for p in t["index_patterns"])), None
        )
        if template is None:
            return answer(404, "index_not_found_exception", f"no template for {stream}")
        if not name or len(name.encode()) > 512:
            return answer(400, "illegal_argument_exception", "id is too long, or none")
        held = self.documents.setdefault(stream, {})
        if name in held:
            self.repeats += 1
            return answer(409, "version_conflict_engine_exception", "document already exists")
        wrong = self.item(name)
        if wrong is not None:
            return answer(*wrong, "as told")
        document = msgspec.json.decode(source)
        reason = unfit(document, dict(leaves(template["template"]["mappings"]["properties"])))
        if reason:
            return answer(400, "document_parsing_exception", reason)
        held[name] = document
        return answer(201)


def leaves(properties: dict[str, Any], above: str = "") -> Any:
    """Dotted field and type of each field of a mapping."""
    for name, field in properties.items():
        if "properties" in field:
            if set(field) != {"properties"}:
                raise Broken(f"{above}{name} is both an object and a field")
            yield from leaves(field["properties"], f"{above}{name}.")
        else:
            if field["type"] not in KINDS or set(field) - {"type", "ignore_above"}:
                raise Broken(f"No handler for type [{field['type']}] declared on field [{name}]")
            yield f"{above}{name}", field["type"]


def flat(document: dict[str, Any], above: str = "") -> Any:
    """Dotted field and value, lists taken apart."""
    for name, value in document.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield from flat(one, f"{above}{name}.")
            else:
                yield f"{above}{name}", one


def unfit(document: dict[str, Any], fields: dict[str, str]) -> str:
    """Why a document does not fit a mapping, which here has to know every field."""
    if "@timestamp" not in document:
        return "data stream timestamp field [@timestamp] is missing"
    for path, value in flat(document):
        if path not in fields:
            return f"[{path}] is not mapped"
        if not KINDS[fields[path]](value):
            return f"failed to parse field [{path}] of type [{fields[path]}]: {value!r}"
    return ""
