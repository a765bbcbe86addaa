"""Engines that keep beginnings of prompts apart by a salt are given one for each tenant; a client's own never reaches any engine.

Without it, an answer that comes sooner tells one tenant what another one has asked.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode

from msgspec import UNSET

from penstock.gateway.call import Call
from penstock.wire.edit import prepend, without

_MEMBER = "cache_salt"  # of vLLM's chat, completions and responses
_TAKES = frozenset({"chat", "completions", "responses"})


def tenant_salt(secret: bytes, tenant: str) -> str:
    """What nobody can guess who does not know `secret`, different for every tenant: 256 bits in 43 characters."""
    digest = hmac.digest(secret, b"cache_salt\0" + tenant.encode(), hashlib.sha256)
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def salt(call: Call) -> None:
    """Writes the tenant's salt into the body if the pool's engines take one, in place of whatever stands there."""
    if call.envelope.cache_salt is not UNSET or b'"cache_salt"' in call.body:
        call.body = without(call.body, _MEMBER)
    caller, leg = call.caller, call.leg
    if caller is None or leg is None or not leg.entry.salted or call.operation not in _TAKES:
        return
    gateway, tenant = call.gateway, caller.tenant.name
    member = gateway.salts.get(tenant)
    if member is None:
        member = gateway.salts[tenant] = f'"{_MEMBER}":"{tenant_salt(gateway.subject_key, tenant)}"'.encode()
    call.body = prepend(call.body, member)
