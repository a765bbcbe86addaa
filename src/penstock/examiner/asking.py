"""An engine of the examiner's own: started for one build on a free port of the loopback interface, asked over HTTP, ended again."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from penstock.core.errors import PenstockError, Unavailable, UpstreamFailed
from penstock.core.jobs import Vouched
from penstock.core.settings import EngineSettings
from penstock.engine.embedder import is_embedder
from penstock.engine.provenance import verify_build
from penstock.engine.serve import serve_engine
from penstock.registry.suites import Item

_PATIENCE_S = 300.0


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """An answer. `tokens` are those that it has; `refused` is why the engine took the request for none that it can answer."""

    text: str = ""
    seconds: float = 0.0
    tokens: int = 0
    refused: str = ""


class Asked:
    """The engine that runs now."""

    def __init__(self, client: httpx.AsyncClient, *, embeds: bool) -> None:
        self._client = client
        self.url = str(client.base_url).rstrip("/")
        self.embeds = embeds

    async def item(self, item: Item, seed: int) -> Said:
        """What the model says to an item: greedy, so that only what the item asks decides.

        Raises:
            UpstreamFailed: if the engine broke off.
        """
        body: dict[str, Any] = {"max_tokens": item.max_tokens}
        if item.messages:
            body["messages"] = [{"role": one.role, "content": one.content} for one in item.messages]
            return await self._ask("/v1/chat/completions", body, seed)
        return await self._ask("/v1/completions", body | {"prompt": item.prompt or ""}, seed)

    async def tokens(self, prompt: list[int], most: int, seed: int) -> Said:
        """How the model goes on after these tokens."""
        return await self._ask("/v1/completions", {"prompt": prompt, "max_tokens": most}, seed)

    async def prompt(self, text: str, seed: int, most: int = 64) -> Said:
        """What it says to a text: as a chat, or, if it cannot chat, by going on with it; of an embedder whether it makes a vector."""
        if self.embeds:
            return await self._embed(text)
        chat = {"messages": [{"role": "user", "content": text}], "max_tokens": most}
        said = await self._ask("/v1/chat/completions", chat, seed)
        if said.refused and "chat template" in said.refused:
            return await self._ask("/v1/completions", {"prompt": text, "max_tokens": most}, seed)
        return said

    async def _embed(self, text: str) -> Said:
        begun = time.monotonic()
        reply = await self._post("/v1/embeddings", {"model": "candidate", "input": text})
        if reply.status_code != 200:
            return Said(refused=_reason(reply))
        vector = reply.json()["data"][0]["embedding"]
        return Said(text=f"a vector of {len(vector)} numbers" if any(vector) else "", seconds=time.monotonic() - begun)

    async def _ask(self, path: str, body: dict[str, Any], seed: int) -> Said:
        begun = time.monotonic()
        reply = await self._post(path, {"model": "candidate", "temperature": 0, "seed": seed, **body})
        seconds = time.monotonic() - begun
        if reply.status_code in {400, 413}:
            return Said(seconds=seconds, refused=_reason(reply))
        if reply.status_code != 200:
            raise UpstreamFailed(f"The engine answered {reply.status_code}: {_reason(reply)}")
        told = reply.json()
        choice = told["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        return Said(text=text or "", seconds=seconds, tokens=told["usage"]["completion_tokens"])

    async def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        try:
            return await self._client.post(path, json=body)
        except httpx.HTTPError as error:
            raise UpstreamFailed(f"The engine broke off: {type(error).__name__}.") from None


def _reason(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {reply.status_code}"


@contextlib.asynccontextmanager
async def running_engine(build: Path, settings: EngineSettings, vouched: Vouched | None = None) -> AsyncIterator[Asked]:
    """The engine over `build`, ready to answer, while the context lasts. With `vouched` code that the build brings is run, if it was signed.

    Raises:
        PenstockError: why it does not load.
    """
    if vouched is not None:
        told = Path(vouched.provenance)
        await asyncio.to_thread(verify_build, build, told, vouched.keys, expected=vouched.digest)
    signed = vouched is not None and bool(vouched.keys)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    ready: asyncio.Future[str] = loop.create_future()
    own = msgspec.structs.replace(settings, host="127.0.0.1", port=0, drain_s=1.0)
    serving = asyncio.create_task(
        serve_engine(
            directory=build,
            model=None,
            settings=own,
            started=ready.set_result,
            stop=stop,
            signals=False,
            signed=signed,
        )
    )
    try:
        waited: set[asyncio.Future[Any]] = {serving, ready}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED, timeout=_PATIENCE_S)
        if not ready.done():
            if not serving.done():
                raise Unavailable(f"The engine was not ready within {_PATIENCE_S:.0f} s.")
            serving.result()
            raise Unavailable("The engine ended before it was ready.")
        async with httpx.AsyncClient(base_url=ready.result(), timeout=_PATIENCE_S, trust_env=False) as client:
            yield Asked(client, embeds=is_embedder(build))
    finally:
        stop.set()
        if not ready.done():
            ready.cancel()
        with contextlib.suppress(PenstockError):
            await serving
