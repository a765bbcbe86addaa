"""Webhooks: how a message is signed, when it is sent again, when it is given up, and which addresses none is sent to. Pure."""

import base64
import binascii
import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from typing import Literal

import msgspec

from penstock.core.errors import BadRequest

PREFIX = "whsec_"
_SECRET_BYTES = (24, 64)
FIRST_S = 1.0  # the first pause before a message is sent again; each further one is twice as long
LONGEST_S = 3600.0
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one attempt. `status` 0: there was no answer; `retry_after_s`: what the receiver asked for."""

    status: int
    error: str = ""
    retry_after_s: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the receiver has it."""
        return 200 <= self.status < 300


class Next(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a delivery after an attempt; `at`: when it is sent again, Unix seconds."""

    state: Literal["delivered", "waiting", "dead"]
    at: float = 0.0


def parse_secret(text: str) -> bytes:
    """The key that `text` stands for: `whsec_` and the base64 of 24 to 64 bytes, as Standard Webhooks writes it.

    Raises:
        BadRequest: if it is none; the message does not repeat it.
    """
    body = text.strip().removeprefix(PREFIX)
    try:
        secret = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    low, high = _SECRET_BYTES
    if not text.strip().startswith(PREFIX) or not low <= len(secret) <= high:
        raise BadRequest(f"The secret is not {PREFIX} and the base64 of {low} to {high} bytes.", param="spec.secret")
    return secret


def signatures(secrets: Sequence[bytes], identity: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: of each secret `v1,` and the base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY` (Standard Webhooks 1.0, symmetric)."""
    signed = f"{identity}.{timestamp}.".encode() + body
    return " ".join(
        "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode() for secret in secrets
    )


def after(outcome: Outcome, *, attempts: int, first_at: float, now: float, draw: float, give_up_s: float) -> Next:
    """What becomes of a delivery.

    Args:
        outcome: of the newest attempt.
        attempts: how many there were, that one included.
        first_at: when the first was.
        now: Unix seconds.
        draw: uniform in [0, 1): the pause is between half of what is due and all of it, so that many do not come at once.
        give_up_s: after so long since the first attempt it is a dead letter.
    """
    if outcome.ok:
        return Next(state="delivered")
    pause = min(LONGEST_S, FIRST_S * 2.0 ** min(attempts - 1, 30)) * (0.5 + draw / 2)
    pause = max(pause, min(outcome.retry_after_s, LONGEST_S))
    if outcome.status == 410 or now + pause - first_at > give_up_s:  # Gone: the receiver wants no more
        return Next(state="dead")
    return Next(state="waiting", at=now + pause)


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Networks, as `10.0.0.0/8` or an address writes them.

    Raises:
        BadRequest: if one is none.
    """
    try:
        return tuple(ipaddress.ip_network(text.strip()) for text in texts)
    except ValueError as error:
        raise BadRequest(f"webhooks.allow_networks: {error}.", param="webhooks.allow_networks") from None


def is_allowed(address: str, networks: Sequence[Network]) -> bool:
    """Whether `address` lies in one of `networks`."""
    found = _plain(address)
    return any(found.version == network.version and found in network for network in networks)


def refusal(address: str, networks: Sequence[Network]) -> str:
    """Why nothing is sent to `address`; "": it may be.

    Only addresses of the public internet are taken: not loopback, private or shared networks, link-local ones (there cloud
    machines tell their credentials), multicast, or what stands for one of them in IPv6 (mapped, 6to4, Teredo, NAT64).
    """
    if is_allowed(address, networks):
        return ""
    found = _plain(address)
    if isinstance(found, ipaddress.IPv6Address) and found in _NAT64:
        found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    hidden = [found]
    if isinstance(found, ipaddress.IPv6Address):
        hidden += [one for one in (found.sixtofour, *(found.teredo or ())) if one is not None]
    if all(one.is_global and not one.is_multicast for one in hidden):
        return ""
    return f"{address} is no public address"


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found
