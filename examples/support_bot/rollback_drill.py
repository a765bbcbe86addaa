"""A roll-back under load, timed: from the command to the moment after which every gateway answers with the old digest.

    python -m examples.support_bot.rollback_drill --url http://127.0.0.1:8080 --key "$(cat penstock-data/demo.key)" --reason "a drill"

Customers ask one question after another, each over a connection of its own, so that every gateway worker is asked. Then `penstock rollback` runs as a person runs it, the start of the program
included. `seconds` end when the last request begins that the newer digest answered. Exit status 1 if a request failed or a gateway still has an older Snapshot than control
published.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from penstock.cli.client import Api, find_key, find_url
from penstock.compose.settings import read_settings

STEADY = 40  # answers by one digest before the command is given
QUIET_S = 1.0  # without an answer of the newer digest, at the end
GIVE_UP_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request as its customer saw it; `began` is in monotonic seconds, `digest` "" if it failed."""

    began: float
    digest: str
    version: str
    why: str = ""


@dataclass
class Load:
    """Customers who ask until `stop` is set."""

    url: str
    key: str
    model: str
    seen: list[Seen] = field(default_factory=list)
    stop: bool = False

    async def ask(self, number: int) -> None:
        """One customer after another."""
        headers = {"authorization": f"Bearer {self.key}", "connection": "close"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60) as http:
            count = 0
            while not self.stop:
                count += 1
                question = f"Where is my order {4_000_000 + number * 100_000 + count}?"
                body = {"model": self.model, "messages": [{"role": "user", "content": question}], "max_tokens": 16}
                began = time.monotonic()
                try:
                    reply = await http.post("/v1/chat/completions", json=body)
                except httpx.HTTPError as error:
                    self.seen.append(Seen(began=began, digest="", version="", why=repr(error)))
                    continue
                why = "" if reply.status_code == 200 else f"{reply.status_code} {reply.text[:200]}"
                digest = "" if why else reply.headers["x-penstock-digest"]
                version = reply.headers.get("x-penstock-version", "")
                self.seen.append(Seen(began=began, digest=digest, version=version, why=why))


async def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for it.

    Raises:
        TimeoutError: if it does not come.
    """
    end = time.monotonic() + GIVE_UP_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} within {GIVE_UP_S:.0f} s")
        await asyncio.sleep(0.02)


async def roll_back(model: str, environment: str, reason: str) -> tuple[str, float]:
    """Runs `penstock rollback`; the digest that it went back to, and how long ago control made the change, in seconds.

    Raises:
        RuntimeError: if it was refused, with its sentence.
    """
    words = ("rollback", model, "--in", environment, "--reason", reason, "--json")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "penstock.cli", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    told, sentence = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(sentence.decode().strip())
    revision = json.loads(told)
    return revision["digest"], time.time() - revision["created_at"]


def behind(api: Api) -> int:
    """How many gateway workers have an older Snapshot than control published last."""
    told = api.get("/gateways")
    return sum(one["generation"] < told["generation"] for one in told["gateways"])


async def drill(load: Load, clients: int, environment: str, reason: str, api: Api) -> dict[str, object]:
    """What a roll-back under load showed."""
    customers = [asyncio.create_task(load.ask(number)) for number in range(clients)]
    try:
        await until(lambda: sum(bool(one.digest) for one in load.seen) >= STEADY, "No steady answers came")
        newer = load.seen[-1]
        began = time.monotonic()
        older, ago = await roll_back(load.model, environment, reason)
        returned = time.monotonic()

        def last() -> float:
            return max((one.began for one in load.seen if one.digest not in ("", older)), default=began)

        await until(lambda: time.monotonic() - max(last(), returned) > QUIET_S, "Gateways did not turn")
        late = await asyncio.to_thread(behind, api)
    finally:
        load.stop = True
        await asyncio.gather(*customers, return_exceptions=True)
    failed = [one.why for one in load.seen if one.why]
    after = next(one.version for one in reversed(load.seen) if one.digest == older)
    return {
        "from": newer.version,
        "to": after,
        "digest": older,
        "seconds": round(max(last(), began) - began, 3),
        "of_which_after_the_change": round(max(0.0, last() - (returned - ago)), 3),
        "command_seconds": round(returned - began, 3),
        "requests": len(load.seen),
        "failed": len(failed),
        "why": failed[:3],
        "gateways_behind": late,
    }


def main() -> int:
    """Prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="of the gateway")
    parser.add_argument("--key", required=True, help="of a customer; control is asked as commands ask it")
    parser.add_argument("--model", default="support-bot")
    parser.add_argument("--in", dest="environment", default="production")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--reason", default="a drill")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    settings = read_settings({})
    url = find_url(settings)
    load = Load(options.url, options.key, options.model)
    with Api(url, find_key(settings, url)) as api:
        found = asyncio.run(drill(load, options.clients, options.environment, options.reason, api))
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print(
            f"{found['from']} to {found['to']}: every gateway answered with the old digest {found['seconds']} s after the command was given, "
            f"{found['of_which_after_the_change']} s after control made the change; "
            f"{found['failed']} of {found['requests']} requests failed."
        )
    return int(bool(found["failed"]) or bool(found["gateways_behind"]))


if __name__ == "__main__":
    sys.exit(main())
