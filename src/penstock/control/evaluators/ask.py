"""How an evaluator asks a model: through the gateway like anybody else, with time limits, a few attempts, and no more than its budget."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import httpx

Answered = Literal["ok", "failed", "timeout", "limited", "away"]

_PAUSES_S = (0.1, 0.5, 2.0)  # between attempts
_PATIENCE_S = 20.0  # a wait that the gateway asks for and that is longer makes the whole evaluator wait
_MOST_BYTES = 4 * 1024 * 1024
_AWAY = frozenset({401, 403, 404, 503})  # the gateway has not heard of the evaluator yet, or nobody is there to answer


class Held(Exception):
    """A model cannot be asked for now, whatever is asked: over budget, or nobody there. It makes sense again after `retry_after` seconds."""

    def __init__(self, why: str, retry_after: float) -> None:
        super().__init__(why)
        self.why = why
        self.retry_after = retry_after


class NotAnswered(Exception):
    """A model failed at one question, as often as allowed."""


class Asker:
    """Asks one model for one evaluator. `calls` counts how calls ended."""

    def __init__(
        self,
        gateway: httpx.AsyncClient,
        *,
        model: str,
        key: str,
        timeout_s: float,
        attempts: int,
    ) -> None:
        """Ask `model` with `key`; `gateway` knows where. Each call has `timeout_s`; one that fails is made `attempts` times."""
        self._gateway = gateway
        self._model = model
        self._headers = {"authorization": f"Bearer {key}"}
        self._timeout_s = timeout_s
        self._attempts = attempts
        self.calls: Counter[Answered] = Counter()

    async def chat(self, messages: Sequence[dict[str, str]], max_tokens: int) -> str:
        """What the model says, at temperature 0.

        Raises:
            NotAnswered: if it failed as often as allowed.
            Held: if it cannot be asked for now.
        """
        body = {"model": self._model, "messages": messages, "max_tokens": max_tokens, "temperature": 0}
        told = await self._ask("/v1/chat/completions", body)
        try:
            return str(told["choices"][0]["message"]["content"] or "")
        except (LookupError, TypeError):
            raise NotAnswered("the answer has no message") from None

    async def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text.

        Raises:
            NotAnswered, Held: as `chat`.
        """
        told = await self._ask("/v1/embeddings", {"model": self._model, "input": list(texts)})
        try:
            found = sorted(told["data"], key=lambda one: one["index"])
            vectors = [[float(value) for value in one["embedding"]] for one in found]
        except (LookupError, TypeError, ValueError, OverflowError):
            raise NotAnswered("the answer has no vectors") from None
        if len(vectors) != len(texts):
            raise NotAnswered(f"there are {len(vectors)} vectors for {len(texts)} texts")
        return vectors

    async def _ask(self, path: str, body: dict[str, Any]) -> Any:
        """The decoded answer of a call that succeeded."""
        for attempt in range(self._attempts):
            if attempt:
                await asyncio.sleep(_PAUSES_S[min(attempt, len(_PAUSES_S)) - 1])
            try:
                reply = await self._within_limits(path, body)
                if reply.status_code == 200 and len(reply.content) <= _MOST_BYTES:
                    told = json.loads(reply.content)
                    self.calls["ok"] += 1
                    return told
            except (TimeoutError, httpx.TimeoutException):
                self.calls["timeout"] += 1
                continue
            except httpx.ConnectError as error:
                self.calls["away"] += 1
                raise Held(f"The gateway cannot be reached: {error}.", retry_after=1.0) from None
            except (httpx.HTTPError, ValueError, RecursionError):  # broke off, or is no JSON
                self.calls["failed"] += 1
                continue
            self.calls["failed"] += 1
            if 400 <= reply.status_code < 500:
                raise NotAnswered(_said(reply))
        raise NotAnswered(f"{self._attempts} calls failed")

    async def _within_limits(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """The reply, when the budget has room for the call."""
        while True:
            async with asyncio.timeout(self._timeout_s):
                reply = await self._gateway.post(path, json=body, headers=self._headers, timeout=self._timeout_s)
            if reply.status_code == 429:
                self.calls["limited"] += 1
                wait = _seconds(reply)
                if wait > _PATIENCE_S:
                    raise Held(f"Over budget: {_said(reply)}", retry_after=wait)
                await asyncio.sleep(wait)
                continue
            if reply.status_code in _AWAY:
                self.calls["away"] += 1
                raise Held(_said(reply), retry_after=min(_seconds(reply), _PATIENCE_S))
            return reply


def _seconds(reply: httpx.Response) -> float:
    """How long the gateway says to wait, at least a tenth of a second."""
    try:
        return max(0.1, float(reply.headers.get("retry-after", "1")))
    except ValueError:
        return 1.0


def _said(reply: httpx.Response) -> str:
    """What the gateway says of a refusal, without any text of the question."""
    try:
        error = json.loads(reply.content)["error"]
        return f"{reply.status_code} {error['code']}: {error['message']}"
    except (ValueError, LookupError, TypeError, RecursionError):
        return f"the gateway answered {reply.status_code}."
