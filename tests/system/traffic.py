"""Steady traffic through the gateway, each reply noted with its times: what users see while something changes."""

import threading
import time
from typing import Any, Self

import httpx
import msgspec


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One request as its client saw it. Times are monotonic seconds; status 0: the connection broke."""

    began: float
    ended: float
    status: int
    version: str = ""
    request: str = ""
    text: str = ""


class Traffic:
    """`clients` threads that ask one request after another until the block ends."""

    def __init__(self, url: str, key: str, *, model: str = "support-bot", clients: int = 4, **body: Any) -> None:
        self.seen: list[Seen] = []
        self._url, self._key, self._model, self._body = url, key, model, body
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self, client: int) -> None:
        headers = {"authorization": f"Bearer {self._key}"}
        with httpx.Client(base_url=self._url, headers=headers, timeout=30) as http:
            number = 0
            while not self._stop.is_set():
                number += 1
                body = {
                    "model": self._model,
                    "messages": [
                        {"role": "user", "content": f"Where is my order {4000000 + client * 100000 + number}?"}
                    ],
                    "max_tokens": 12,
                    **self._body,
                }
                began = time.monotonic()
                try:
                    reply = http.post("/v1/chat/completions", json=body)
                except httpx.HTTPError as error:
                    self.seen.append(Seen(began=began, ended=time.monotonic(), status=0, text=repr(error)))
                    time.sleep(0.05)
                    continue
                self.seen.append(
                    Seen(
                        began=began,
                        ended=time.monotonic(),
                        status=reply.status_code,
                        version=reply.headers.get("x-penstock-version", ""),
                        request=reply.headers.get("x-penstock-request-id", ""),
                        text=reply.text if reply.status_code != 200 else "",
                    )
                )

    def failed(self) -> list[Seen]:
        """What was not answered with 200."""
        return [seen for seen in self.seen if seen.status != 200]
