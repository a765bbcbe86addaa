"""A small server that speaks the Hugging Face hub's API over real sockets: revisions, files with redirects and ranges, private and gated models; it fails when told to."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 1000  # bytes from which on a file lies elsewhere, as with LFS


class Repo:
    """One model on the hub."""

    def __init__(self, files: dict[str, bytes], *, card: dict[str, Any] | None = None, access: str = "") -> None:
        self.files = files
        self.card = card or {}
        self.access = access  # "": public; "private", "gated"
        self.commit = hashlib.sha1(b"".join(files.values()), usedforsecurity=False).hexdigest()
        self.revisions = {"main": self.commit, "refs/pr/1": self.commit, self.commit: self.commit}


class FakeHub:
    """The hub and, at another port, the store of large files. `tokens`: who may see what is not public; `friends`: who was let in to what is gated."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.tokens = {"hf_known", "hf_friend"}
        self.friends = {"hf_friend"}
        self.asked: list[tuple[str, str, str]] = []  # path, Range, Authorization: of both servers
        self.stored: list[tuple[str, str, str]] = []
        self.cut_after: list[int] = []  # of the next answers with a file: bytes after which the connection breaks
        self.lie = 0  # so many of the next answers with a file have another byte in them
        self.statuses: list[int] = []  # of the next answers, instead of what was asked
        self.no_ranges = False
        self.url = self.store_url = ""

    @contextmanager
    def running(self) -> Iterator["FakeHub"]:
        """Both servers listen while the context lasts."""
        servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in (_hub(self), _store(self))]
        self.url, self.store_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
        threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            for server, thread in zip(servers, threads, strict=True):
                server.shutdown()
                thread.join()
                server.server_close()


class _Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status: int, code: str, words: str) -> None:
        self.answer(status, json.dumps({"error": words}).encode(), x_error_code=code, x_error_message=words)

    def send_file(self, hub: FakeHub, data: bytes, **headers: str) -> None:
        asked = self.headers.get("range", "")
        begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and not hub.no_ranges else 0
        if hub.lie:
            hub.lie -= 1
            data = bytes([data[0] ^ 1]) + data[1:]
        part = data[begin:]
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("content-range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(part)))
        self.end_headers()
        if hub.cut_after:
            self.wfile.write(part[: hub.cut_after.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
            return
        self.wfile.write(part)


def _hub(hub: FakeHub) -> type[_Quiet]:
    class Handler(_Quiet):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            hub.asked.append((path, self.headers.get("range", ""), self.headers.get("authorization", "")))
            if hub.statuses:
                self.answer(hub.statuses.pop(0), b"{}", retry_after="0")
            elif path.startswith("/api/models/"):
                name, _, revision = path.removeprefix("/api/models/").partition("/revision/")
                repo = self.visible(name)
                if repo is not None:
                    self.tell(name, repo, unquote(revision))
            else:
                name, _, rest = path[1:].partition("/resolve/")
                repo = self.visible(name)
                if repo is not None and self.let_in(name, repo):
                    commit, _, file = rest.partition("/")
                    self.resolve(repo, commit, unquote(file))

        def visible(self, name: str) -> Repo | None:
            repo = hub.repos.get(name)
            token = self.headers.get("authorization", "").removeprefix("Bearer ")
            if repo is None or (repo.access == "private" and token not in hub.tokens):
                self.error(401 if not token else 404, "RepoNotFound", "Repository not found")
                return None
            return repo

        def let_in(self, name: str, repo: Repo) -> bool:
            token = self.headers.get("authorization", "").removeprefix("Bearer ")
            if repo.access == "gated" and token not in hub.friends:
                words = f"Access to model {name} is restricted"
                self.error(401 if not token else 403, "GatedRepo", words)
                return False
            return True

        def tell(self, name: str, repo: Repo, revision: str) -> None:
            commit = repo.revisions.get(revision)
            if commit is None:
                self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
                return
            siblings = [_sibling(path, data) for path, data in repo.files.items()]
            told = {
                "id": name,
                "sha": commit,
                "siblings": siblings,
                "cardData": repo.card,
                "gated": repo.access == "gated",
            }
            self.answer(200, json.dumps(told).encode(), content_type="application/json")

        def resolve(self, repo: Repo, commit: str, file: str) -> None:
            data = repo.files.get(file)
            if data is None or commit != repo.commit:
                self.error(404, "EntryNotFound", "Entry not found")
                return
            sibling = _sibling(file, data)
            if "lfs" in sibling:
                digest = sibling["lfs"]["sha256"]
                where = f"{hub.store_url}/{digest}?signature=x"
                self.answer(
                    302, location=where, x_linked_etag=f'"{digest}"', x_linked_size=str(len(data)), x_repo_commit=commit
                )
                return
            self.send_file(hub, data, etag=f'"{sibling["blobId"]}"', x_repo_commit=commit)

    return Handler


def _store(hub: FakeHub) -> type[_Quiet]:
    class Handler(_Quiet):
        def do_GET(self) -> None:
            digest = urlsplit(self.path).path[1:]
            hub.stored.append((digest, self.headers.get("range", ""), self.headers.get("authorization", "")))
            for repo in hub.repos.values():
                for data in repo.files.values():
                    if hashlib.sha256(data).hexdigest() == digest:
                        self.send_file(hub, data, etag=f'"{digest[:32]}"')
                        return
            self.answer(404)

    return Handler


def _sibling(path: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
    told: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": blob}
    if len(data) >= LARGE:
        told["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return told
