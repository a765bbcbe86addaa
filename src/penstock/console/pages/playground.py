"""The playground: one question to a model, through a gateway and with a gateway key, as any application would ask it."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import msgspec
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from penstock.console.asking import Asked, Delta, Facts, Trouble, ask, gathered
from penstock.console.client import at
from penstock.console.forms import optional_number
from penstock.console.shapes_requests import Explained
from penstock.console.visit import Visit
from penstock.core.errors import BadRequest, NotFound, PenstockError

_COST_WITHIN_S = 3.0
_COST_EVERY_S = 0.15


class _Listed(msgspec.Struct, frozen=True):
    id: str


class _Models(msgspec.Struct, frozen=True):
    data: tuple[_Listed, ...] = ()


def gateway_key(visit: Visit) -> tuple[str, str]:
    """The key that the playground asks with, and where it is from, in words; the key is empty if there is none."""
    if visit.session.gateway_key:
        return visit.session.gateway_key, "Requests are made with the key that you gave."
    if visit.me.tenant:
        return visit.session.key, f"Requests are made with your own key, for the tenant {visit.me.tenant}."
    if visit.may("deployments:write"):
        key = visit.console.playground_key()
        if key:
            return key, "Requests are made with the demo tenant's key."
    return "", "Models answer only to a tenant's key, and the one that you signed in with belongs to none."


async def _models(visit: Visit, key: str) -> tuple[str, ...]:
    if not key:
        return ()
    try:
        reply = await visit.console.gateway.get(
            f"{visit.console.gateway_url}/v1/models", headers={"authorization": f"Bearer {key}"}, timeout=3.0
        )
        return tuple(one.id for one in msgspec.json.decode(reply.content, type=_Models).data)
    except (httpx.HTTPError, msgspec.DecodeError):
        return ()


async def _page(
    visit: Visit, asked: Asked, *, answer: str | None = None, trouble: str = "", facts: Facts | None = None
) -> Response:
    key, source = gateway_key(visit)
    models = await _models(visit, key)
    return visit.page(
        "playground.html",
        models=models,
        asked=asked if asked.model or not models else msgspec.structs.replace(asked, model=models[0]),
        answer=answer,
        trouble=trouble,
        facts=facts,
        key_source=source,
        has_gateway_key=bool(key),
    )


async def show(visit: Visit) -> Response:
    """The empty form."""
    return await _page(visit, Asked(model=visit.query("model"), temperature=0.0, max_tokens=256))


async def _asked(visit: Visit) -> Asked:
    form = await visit.form()
    most = optional_number(form, "max_tokens", 1, 1_000_000)
    asked = Asked(
        model=form.get("model", "").strip(),
        message=form.get("message", "").replace("\r\n", "\n"),
        system=form.get("system", "").replace("\r\n", "\n").strip(),
        temperature=optional_number(form, "temperature", 0, 2),
        max_tokens=None if most is None else int(most),
    )
    if not asked.model or not asked.message.strip():
        raise BadRequest("A question needs a model and a message.")
    return asked


async def whole(visit: Visit) -> Response:
    """The form without script: the page again, with the whole answer."""
    asked = await _asked(visit)
    key, source = gateway_key(visit)
    if not key:
        return await _page(visit, asked, trouble=f"{source} Give one below.")
    answer, trouble, facts = await gathered(ask(visit.console.gateway, visit.console.gateway_url, key, asked))
    return await _page(visit, asked, answer=answer, trouble=trouble, facts=await _priced(visit, facts))


async def stream(visit: Visit) -> Response:
    """The form with script: the answer as events `delta`, `trouble` and `facts` (a piece of HTML), each with JSON."""
    asked = await _asked(visit)
    key, source = gateway_key(visit)
    if not key:
        return PlainTextResponse(f"{source} Give one in the form beside.", 403)

    async def events() -> AsyncIterator[bytes]:
        async for item in ask(visit.console.gateway, visit.console.gateway_url, key, asked):
            if isinstance(item, Delta):
                yield _event("delta", {"text": item.text})
            elif isinstance(item, Trouble):
                yield _event("trouble", {"message": item.message})
            else:
                yield _event("facts", {"html": visit.render("answer_facts.html", facts=item)})
                yield _event("facts", {"html": visit.render("answer_facts.html", facts=await _priced(visit, item))})

    return StreamingResponse(events(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


def _event(name: str, data: dict[str, str]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))


async def _priced(visit: Visit, facts: Facts) -> Facts:
    """`facts` with the cost, once the record of the request has come in; as they are if that takes longer than a moment."""
    if not facts.request_id:
        return facts
    for _ in range(int(_COST_WITHIN_S / _COST_EVERY_S)):
        try:
            found = await visit.api.get(at("requests", facts.request_id), Explained)
        except NotFound:
            await asyncio.sleep(_COST_EVERY_S)
        except PenstockError:
            return facts
        else:
            return msgspec.structs.replace(facts, cost_usd=found.request.cost_nanousd / 1e9)
    return facts


async def keep_key(visit: Visit) -> Response:
    """Keep a gateway key in the session, or forget the one that was given."""
    form = await visit.form()
    key = form.get("gateway_key", "").strip()
    if len(key) > 512 or not key.isascii() or not (key.isprintable()):
        raise BadRequest("That is no key: it is one line of letters and digits.", param="gateway_key")
    response = visit.to("/playground", "key-kept" if key else "key-forgotten")
    visit.console.keep(visit.request, response, msgspec.structs.replace(visit.session, gateway_key=key))
    return response
