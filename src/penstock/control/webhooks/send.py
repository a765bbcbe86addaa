"""One attempt to deliver a message: the receiver's name resolved and looked at, the request signed and sent, its status read."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

import httpx

from penstock import __version__
from penstock.delivery.webhooks import Network, Outcome, is_allowed, refusal, signatures


class Sender:
    """Posts messages. Connections are not kept: each goes to an address that was looked at for it. Close it."""

    def __init__(self, *, networks: Sequence[Network], timeout_s: float) -> None:
        """A sender whose attempts take `timeout_s` seconds at most and that goes to public addresses, and to those in `networks`."""
        self._networks = networks
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=timeout_s,
            verify=ssl.create_default_context(),
            limits=httpx.Limits(max_keepalive_connections=0),
            headers={"user-agent": f"Penstock/{__version__}", "accept": "*/*", "accept-encoding": "identity"},
        )

    async def close(self) -> None:
        """Let go of what is open."""
        await self._http.aclose()

    async def send(self, url: str, secrets: Sequence[bytes], identity: str, body: bytes, now: float) -> Outcome:
        """Post `body` to `url`, as the message `identity` at `now` (Unix seconds); what came of it. The answer's body is not read."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._send(url, secrets, identity, body, int(now))
        except TimeoutError:
            return Outcome(status=0, error=f"There was no answer within {self._timeout_s:g} s.")
        except _RefusedError as refused:
            return Outcome(status=0, error=str(refused))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            return Outcome(status=0, error=f"It cannot be reached: {error or type(error).__name__}.")

    async def _send(self, url: str, secrets: Sequence[bytes], identity: str, body: bytes, at: int) -> Outcome:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        addresses = await self._addresses(parts.scheme, host, port)
        for number, address in enumerate(addresses, 1):
            request = self._http.build_request(
                "POST",
                parts._replace(netloc=f"[{address}]:{port}" if ":" in address else f"{address}:{port}").geturl(),
                content=body,
                headers={
                    "host": parts.netloc,
                    "content-type": "application/json",
                    "webhook-id": identity,
                    "webhook-timestamp": str(at),
                    "webhook-signature": signatures(secrets, identity, at, body),
                },
                extensions={"sni_hostname": host},
            )
            try:
                reply = await self._http.send(request, stream=True)
                break
            except httpx.ConnectError:
                if number == len(addresses):
                    raise
        await reply.aclose()
        asked = reply.headers.get("retry-after", "")
        pause = float(asked) if asked.isascii() and asked.isdigit() and len(asked) < 9 else 0.0
        error = "" if reply.is_success else f"It answered with status {reply.status_code}."
        return Outcome(status=reply.status_code, error=error, retry_after_s=pause)

    async def _addresses(self, scheme: str, host: str, port: int) -> list[str]:
        """The addresses of `host`, all of which may be sent to."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        for address in addresses:
            why = refusal(address, self._networks)
            if not why and scheme == "http" and not is_allowed(address, self._networks):
                why = f"{address} is spoken to through TLS alone"
            if why:
                raise _RefusedError(f"It is not sent: {why} (webhooks.allow_networks lets networks in).")
        return addresses


class _RefusedError(Exception):
    """Nothing may be sent there."""
