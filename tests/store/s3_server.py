"""A small server that speaks S3 over real sockets, and takes only what is signed right (Signature Version 4) and asked right.

Objects, ranges, listings by prefix, multipart uploads, deletions by one and by many: what object stores' clients use.
"""

import asyncio
import hashlib
import hmac
import re
import threading
from typing import Any
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

KEY, SECRET, REGION, BUCKET = "penstock", "a secret of the tests", "eu-test-1", "bucket"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)


class S3Server:
    """The server; `objects` is what it holds, by key.

    Attributes:
        calls: what was asked, as (method, what).
        fail: so many of the next requests are answered with 503.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.calls: list[tuple[str, str]] = []
        self.refused: list[str] = []
        self.fail = 0
        self._parts: dict[str, dict[int, bytes]] = {}
        self._count = 0
        app = Starlette(routes=[Route("/{bucket}/{key:path}", self._answer, methods=["GET", "PUT", "POST", "DELETE", "HEAD"]),
                                Route("/{bucket}", self._answer, methods=["GET", "POST"])])  # fmt: skip
        self._server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off"))
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> str:
        """Serve; the endpoint's URL."""
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the S3 server did not start")
            threading.Event().wait(0.01)
        return f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        """End."""
        self._server.should_exit = True
        self._thread.join(20)

    def _run(self) -> None:
        asyncio.run(self._server.serve())

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        wrong = _unsigned(request, body)
        if wrong is not None:
            self.refused.append(wrong)
            return _error(403, "SignatureDoesNotMatch", wrong)
        if request.path_params["bucket"] != BUCKET:
            return _error(404, "NoSuchBucket", request.path_params["bucket"])
        if self.fail:
            self.fail -= 1
            return _error(503, "SlowDown", "try again")
        key, query = request.path_params.get("key", ""), request.query_params
        if request.method == "POST" and "delete" in query:
            keys = [unquote(found) for found in re.findall(r"<Key>([^<]*)</Key>", body.decode())]
            for one in keys:
                self.objects.pop(one, None)
            gone = "".join(f"<Deleted><Key>{escape(one)}</Key></Deleted>" for one in keys)
            return _xml(f"<DeleteResult>{gone}</DeleteResult>")
        if not key:
            return self._list(query)
        self.calls.append((request.method, key))
        return self._multipart(request.method, key, query, body) or self._object(request, key, body)

    def _list(self, query: Any) -> Response:
        if query.get("list-type") != "2":
            return _error(400, "InvalidArgument", "list-type")
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
        keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        page = keys[:100]
        more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if len(keys) > 100 else ""
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size><ETag>{_etag(self.objects[key])}</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in page
        )
        return _xml(
            f"<ListBucketResult><IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}{entries}</ListBucketResult>"
        )

    def _multipart(self, method: str, key: str, query: Any, body: bytes) -> Response | None:
        if method == "POST" and "uploads" in query:
            self._count += 1
            self._parts[str(self._count)] = {}
            return _xml(
                f"<InitiateMultipartUploadResult><UploadId>{self._count}</UploadId></InitiateMultipartUploadResult>"
            )
        identity = query.get("uploadId")
        if identity is None:
            return None
        parts = self._parts.get(identity)
        if parts is None:
            return _error(404, "NoSuchUpload", identity)
        if method == "PUT":
            parts[int(query["partNumber"])] = body
            return Response(status_code=200, headers={"etag": _etag(body)})
        del self._parts[identity]
        if method == "POST":
            asked = [int(n) for n in re.findall(r"<PartNumber>(\d+)</PartNumber>", body.decode())]
            if asked != sorted(parts) or any(len(parts[n]) < 5 << 20 for n in asked[:-1]):
                return _error(400, "InvalidPart", key)
            self.objects[key] = b"".join(parts[n] for n in asked)
            return _xml(
                f"<CompleteMultipartUploadResult><ETag>{_etag(self.objects[key])}</ETag></CompleteMultipartUploadResult>"
            )
        return Response(status_code=204)

    def _object(self, request: Request, key: str, body: bytes) -> Response:
        if request.method == "PUT":
            if request.headers.get("if-none-match") == "*" and key in self.objects:
                return _error(412, "PreconditionFailed", key)
            self.objects[key] = body
            return Response(status_code=200, headers={"etag": _etag(body)})
        if request.method == "DELETE":
            self.objects.pop(key, None)
            return Response(status_code=204)
        data = self.objects.get(key)
        if data is None:
            return _error(404, "NoSuchKey", key)
        headers = {"etag": _etag(data), "last-modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if asked is None:
            return Response(data, headers=headers)
        first, last = int(asked[1]), int(asked[2] or len(data) - 1)
        if first >= len(data):
            return _error(416, "InvalidRange", key)
        part = data[first : last + 1]
        headers["content-range"] = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
        return Response(part, status_code=206, headers=headers)


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _xml(text: str) -> Response:
    return Response('<?xml version="1.0" encoding="UTF-8"?>' + text, media_type="application/xml")


def _error(status: int, code: str, message: str) -> Response:
    text = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    return Response(text, status_code=status, media_type="application/xml")


def _unsigned(request: Request, body: bytes) -> str | None:
    """What is wrong with the signature; None if it is right."""
    found = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    if found is None:
        return "there is no signature"
    key, day, region, signed, signature = found.groups()
    if (key, region) != (KEY, REGION):
        return f"{key} in {region} is nobody here"
    payload = request.headers.get("x-amz-content-sha256", "")
    if payload not in {"UNSIGNED-PAYLOAD", hashlib.sha256(body).hexdigest()}:
        return "the body is not the one that was signed"
    query = sorted(part.partition("=")[::2] for part in request.url.query.split("&") if part)
    canonical = "\n".join(
        (
            request.method,
            quote(request.scope["path"], safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in query),
            *(f"{name}:{request.headers[name].strip()}" for name in signed.split(";")),
            "",
            signed,
            payload,
        )
    )
    scope = f"{day}/{region}/s3/aws4_request"
    text = "\n".join(
        ("AWS4-HMAC-SHA256", request.headers["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest())
    )
    made = f"AWS4{SECRET}".encode()
    for part in (day, region, "s3", "aws4_request", text):
        made = hmac.new(made, part.encode(), hashlib.sha256).digest()
    return None if hmac.compare_digest(made.hex(), signature) else "the signature is another"
