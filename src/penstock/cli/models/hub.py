"""The Hugging Face hub, as far as a version is fetched from it: what a revision holds, and its files, each checked.

Source: huggingface.co/docs/hub/api (GET /api/models/REPO/revision/REVISION) and the headers that huggingface_hub reads (ETag, X-Linked-Etag, X-Repo-Commit, X-Error-Code).
"""

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from penstock.core.errors import BadRequest, Damaged, Forbidden, NotFound, PenstockError, RateLimited, Unavailable

ENDPOINT = "https://huggingface.co"
Answer = TypeVar("Answer")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PIECE = 1 << 20
_TRIES = 5  # of a request that the network broke off; each goes on where the last one came to
_PAUSE_S = 0.5  # before the second one, doubled each time
_LONGEST_PAUSE_S = 30.0
_TIMEOUT_S = 30.0  # for each step of an answer


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A model on the hub: `hf:ORG/NAME@REVISION`."""

    repo: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"hf:{self.repo}@{self.revision}"


class HubFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a revision. `sha256` is told of large files, `sha1` (git's, of a blob) of all others."""

    path: str
    size: int
    sha256: str = ""
    sha1: str = ""


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """A revision, resolved.

    Attributes:
        commit: 40 hexadecimal digits: what a branch or tag means now.
        card: the front matter of its README, as the hub read it.
    """

    source: Source
    commit: str
    files: tuple[HubFile, ...]
    card: dict[str, Any] = {}


def parse_source(text: str) -> Source:
    """`text` as a model on the hub.

    Raises:
        BadRequest: if it is none.
    """
    repo, at, revision = text.removeprefix("hf:").partition("@")
    if not text.startswith("hf:") or not _REPO.fullmatch(repo) or (at and not revision) or ".." in repo:
        raise BadRequest(f"{text!r} is no model on the hub; write hf:ORG/NAME or hf:ORG/NAME@REVISION.", param="SOURCE")
    return Source(repo=repo, revision=revision or "main")


class Hub:
    """A hub, as one caller sees it. Use it in `with`."""

    def __init__(self, environ: Mapping[str, str], *, pause: Callable[[float], None] = time.sleep) -> None:
        """The hub at HF_ENDPOINT, shown HF_TOKEN if there is one. `pause` waits some seconds between tries.

        Raises:
            BadRequest: if HF_ENDPOINT is no URL.
        """
        self.endpoint = (environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
        if not self.endpoint.startswith(("https://", "http://")):
            raise BadRequest(f"HF_ENDPOINT is {self.endpoint!r}, which is no URL.", param="HF_ENDPOINT")
        self._token = environ.get("HF_TOKEN", "").strip()
        self._pause = pause
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        # The token is not shown to another host that the hub sends us to.
        self._http = httpx.Client(
            headers={"user-agent": "penstock", **headers}, follow_redirects=True, max_redirects=5, timeout=_TIMEOUT_S
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def revision(self, source: Source) -> Revision:
        """What `source` means now.

        Raises:
            NotFound: if there is no such model or revision, or it is private and the token may not see it.
            Forbidden: if it is gated and the token's owner was not let in.
            Unavailable, RateLimited: if the hub does not answer.
        """
        url = f"{self.endpoint}/api/models/{source.repo}/revision/{quote(source.revision, safe='')}"
        told = self._again(lambda: self._document(source, url))
        try:
            commit = str(told["sha"])
            files = tuple(_file(one) for one in told["siblings"])
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"{self.endpoint} answers with no model of the hub's form ({error!r}).") from None
        if not _COMMIT.fullmatch(commit):
            raise Damaged(f"{self.endpoint} names the commit {commit[:80]!r}, which is none.")
        card = told.get("cardData")
        return Revision(source=source, commit=commit, files=files, card=card if isinstance(card, dict) else {})

    def fetch(self, revision: Revision, file: HubFile, place: Path, tell: Callable[[int], None]) -> str:
        """Have the file lie at `place`, whole and checked: one that does is left; a part that lies at `place`.part is gone on with. Gives its SHA-256.

        `tell` is told how many of its bytes are here, again and again.

        Raises:
            Damaged: if what comes has other bytes than the hub says, twice.
            NotFound, Forbidden, Unavailable, RateLimited: as `revision`.
        """
        part = place.with_name(f"{place.name}.part")
        found = _digest(place, file) if place.is_file() else None
        if found is not None:
            tell(file.size)
            return found
        for _ in range(2):
            self._again(lambda: self._get(revision, file, part, tell))
            found = _digest(part, file)
            if found is not None:
                part.replace(place)
                return found
            part.unlink()
        raise Damaged(
            f"{file.path} of {revision.source} arrived twice with other bytes than the hub says; nothing is kept of it.",
            code="digest_mismatch",
        )

    def _document(self, source: Source, url: str) -> dict[str, Any]:
        reply = self._http.get(url, params={"blobs": "true"})
        self._check(reply, source)
        try:
            told = reply.json()
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise Damaged(f"{self.endpoint} answers with no JSON object; is it a hub?", hint="HF_ENDPOINT names it.")
        return told

    def _get(self, revision: Revision, file: HubFile, part: Path, tell: Callable[[int], None]) -> None:
        """Bring `part` to the file's size, from where it is."""
        if not part.is_file() or part.stat().st_size > file.size:
            part.write_bytes(b"")
        have = part.stat().st_size
        tell(have)
        if have == file.size:
            return
        url = f"{self.endpoint}/{revision.source.repo}/resolve/{revision.commit}/{quote(file.path)}"
        headers = {"accept-encoding": "identity"} | ({"range": f"bytes={have}-"} if have else {})
        with self._http.stream("GET", url, headers=headers) as reply:
            if reply.status_code >= 400:
                reply.read()
            self._check(reply, revision.source)
            _check_same(reply, revision, file)
            _save(reply, file, part, have, tell)

    def _again(self, ask: Callable[[], Answer]) -> Answer:
        """What `ask` gives; asked again, after a pause, where the network or the hub fails."""
        pause = _PAUSE_S
        for attempt in range(1, _TRIES + 1):
            try:
                return ask()
            except (httpx.TransportError, Unavailable, RateLimited) as error:
                if attempt == _TRIES:
                    if isinstance(error, PenstockError):
                        raise
                    raise Unavailable(
                        f"{self.endpoint} cannot be reached ({type(error).__name__}: {error}).",
                        hint="Run the command again: it goes on where it was.",
                    ) from None
                told = error.retry_after if isinstance(error, PenstockError) else None
                self._pause(min(max(pause, told or 0.0), _LONGEST_PAUSE_S))
                pause *= 2
            except httpx.HTTPError as error:  # too many redirects, a body that cannot be decoded
                raise Unavailable(f"{self.endpoint} answers with what is no HTTP ({error}).") from None
        raise AssertionError  # the last attempt returns or raises

    def _check(self, reply: httpx.Response, source: Source) -> None:
        status, code = reply.status_code, reply.headers.get("x-error-code", "")
        if status < 400:
            return
        shown = "HF_TOKEN was shown" if self._token else "no HF_TOKEN was shown"
        if code == "GatedRepo":
            raise Forbidden(
                f"{source} is gated: its owners let in whom they know, and {shown}.",
                code="gated_model",
                hint=f"Ask for access at {self.endpoint}/{source.repo}, then set HF_TOKEN to a token of that account.",
            )
        if code == "RevisionNotFound":
            raise NotFound(
                f"{source.repo} has no revision {source.revision!r}.", code="revision_not_found", param="SOURCE"
            )
        if code == "EntryNotFound":
            raise NotFound(f"{source} has no such file any more.", code="entry_not_found", param="SOURCE")
        if status in {401, 404} or code == "RepoNotFound":
            raise NotFound(
                f"{self.endpoint} has no model {source.repo!r}, or it is private and not for us: {shown}.",
                code="model_not_found",
                param="SOURCE",
                hint="A private model needs HF_TOKEN, a token that may read it." if not self._token else None,
            )
        if status == 403:
            raise Forbidden(
                f"{self.endpoint} does not let us have {source}: {_words(reply)}; {shown}.", code="hub_forbids"
            )
        if status == 429:
            raise RateLimited(f"{self.endpoint} asks us to wait.", retry_after=_seconds(reply))
        if status >= 500:
            raise Unavailable(f"{self.endpoint} answers {status}: {_words(reply)}.", retry_after=_seconds(reply))
        raise BadRequest(f"{self.endpoint} answers {status} for {source}: {_words(reply)}.", code="hub_refuses")


def _file(told: dict[str, Any]) -> HubFile:
    large = told.get("lfs") or {}
    size = told.get("size", large.get("size"))
    return HubFile(
        path=str(told["rfilename"]),
        size=int(size) if size is not None else -1,
        sha256=str(large.get("sha256", "")),
        sha1="" if large else str(told.get("blobId", "")),
    )


def _check_same(reply: httpx.Response, revision: Revision, file: HubFile) -> None:
    """See that the hub, before it sent us on, spoke of the commit and the bytes that it told of.

    Raises:
        Damaged: if it did not.
    """
    first = reply.history[0] if reply.history else reply
    commit = first.headers.get("x-repo-commit", revision.commit)
    if commit != revision.commit:
        raise Damaged(f"{file.path}: the hub sends it of the commit {commit[:40]}, not of {revision.commit}.")
    tag = (first.headers.get("x-linked-etag") or first.headers.get("etag", "")).removeprefix("W/").strip('"')
    known = file.sha256 or file.sha1
    if known and len(tag) == len(known) and tag != known:
        raise Damaged(f"{file.path}: the hub sends {tag[:12]}, and told of {known[:12]}.", code="digest_mismatch")


def _save(reply: httpx.Response, file: HubFile, part: Path, have: int, tell: Callable[[int], None]) -> None:
    """Write what comes to `part`, behind the `have` bytes that lie there if the hub goes on from them.

    Raises:
        Damaged: if it sends other bytes than were asked, or more than there are.
        Unavailable: if it ends too early; what came is kept.
    """
    goes_on = reply.status_code == 206
    if goes_on and not reply.headers.get("content-range", "").startswith(f"bytes {have}-"):
        raise Damaged(f"{file.path}: bytes from {have} on were asked, and others came.")
    got = have if goes_on else 0
    with part.open("ab" if goes_on else "wb") as out:
        for piece in reply.iter_raw():
            got += len(piece)
            if got > file.size:
                raise Damaged(f"{file.path} has more than the {file.size} bytes that the hub says.")
            out.write(piece)
            tell(got)
    if got < file.size:
        raise Unavailable(f"{file.path} broke off after {got} of {file.size} bytes.")


def _digest(place: Path, file: HubFile) -> str | None:
    """The SHA-256 of what lies at `place`, `sha256:` before it; None if it is not the file."""
    size = place.stat().st_size
    if size != file.size:
        return None
    whole = hashlib.sha256()
    blob = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)  # as git names it
    with place.open("rb") as opened:
        while piece := opened.read(_PIECE):
            whole.update(piece)
            blob.update(piece)
    if (file.sha256 and whole.hexdigest() != file.sha256) or (file.sha1 and blob.hexdigest() != file.sha1):
        return None
    return f"sha256:{whole.hexdigest()}"


def _seconds(reply: httpx.Response) -> float | None:
    with suppress(ValueError):
        return max(0.0, float(reply.headers.get("retry-after", "")))
    return None


def _words(reply: httpx.Response) -> str:
    told = reply.headers.get("x-error-message", "")
    if not told:
        with suppress(ValueError, AttributeError, TypeError):
            told = str(reply.json().get("error", ""))
    return (told or reply.reason_phrase)[:300].rstrip(".")


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where files lie until they are registered."""
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock" / "hub"
