"""Models: the list, one model, one version, and the forms that promote and roll back."""

import asyncio
from collections import defaultdict
from typing import Any

import msgspec
from starlette.responses import Response

from penstock.console.client import at
from penstock.console.lineage import draw
from penstock.console.pages import drift
from penstock.console.shapes import Block, CanaryLine, Deployment, Model, Revision, Storage, Version
from penstock.console.shapes_versions import Alias, CardCheck, CardRevision, Graph
from penstock.console.visit import Visit
from penstock.core.errors import BadRequest, Conflict, NotFound
from penstock.delivery.revisions import Past, Whole, choose_rollback

_USUAL = ("dev", "staging", "production")


async def listing(visit: Visit) -> Response:
    """All models, and where each is deployed."""
    models, deployments, storage = await asyncio.gather(
        visit.api.get("/models", tuple[Model, ...]),
        visit.api.get("/deployments", tuple[Deployment, ...]),
        visit.api.get("/storage", Storage),
    )
    deployed: dict[str, list[Deployment]] = defaultdict(list)
    for one in deployments:
        deployed[one.model].append(one)
    return visit.page("models.html", models=models, deployed=deployed, storage=storage)


async def _deployments(visit: Visit, name: str) -> list[Deployment]:
    return [one for one in await visit.api.get("/deployments", tuple[Deployment, ...]) if one.model == name]


async def show(visit: Visit) -> Response:
    """One model: where it runs, its versions, a card, its history."""
    name = visit.path("name")
    model, versions, deployments, history, tried, blocks = await asyncio.gather(
        visit.api.get(at("models", name), Model),
        visit.api.get(at("models", name, "versions"), tuple[Version, ...]),
        _deployments(visit, name),
        visit.api.get(at("models", name, "history"), tuple[Revision, ...]),
        visit.api.get("/canaries", tuple[CanaryLine, ...], model=name, limit="20"),
        visit.api.get("/blocks", tuple[Block, ...], model=name),
    )
    versions = tuple(sorted(versions, key=lambda version: -version.number))
    shown = next((v for d in deployments for v in versions if v.label == d.label), versions[0] if versions else None)
    lineage = None
    if shown is not None:
        where = at("models", name, "versions", shown.label)
        shown, graph = await asyncio.gather(visit.api.get(where, Version), visit.api.get(f"{where}/lineage", Graph))
        lineage = draw(graph)
    return visit.page(
        "model.html",
        model=model,
        versions=versions,
        deployments=deployments,
        history=history,
        canaries=tried,
        blocks=blocks,
        aliases=await visit.api.get(at("models", name, "aliases"), tuple[Alias, ...]),
        lineage=lineage,
        shown=shown,
        previous={one.environment: earlier(history, one) for one in deployments},
        **await drift.watched(visit, name),
        may_deploy=visit.may("deployments:write"),
    )


def earlier(history: tuple[Revision, ...], deployment: Deployment) -> Revision | None:
    """The revision whose whole state a roll-back copies; none if there is none to go back to."""
    there = {one.id: one for one in history if one.environment == deployment.environment}
    past = [
        Past(
            id=one.id,
            number=one.number,
            state=one.state,
            whole=Whole(
                label=one.label,
                digest=one.digest,
                precision=one.config.get("precision", "int8"),
                replicas=one.config.get("replicas", 1),
            ),
        )
        for one in there.values()
    ]
    if deployment.wanted_revision not in there:
        return None
    try:
        return there[choose_rollback(past, wanted=deployment.wanted_revision).id]
    except (NotFound, Conflict):  # nothing earlier, or the last change failed and is undone
        return None


async def version(visit: Visit) -> Response:
    """One version: card, files, builds, metadata."""
    name, label = visit.path("name"), visit.path("label")
    where = at("models", name, "versions", label)
    found, deployments, graph, check, revisions = await asyncio.gather(
        visit.api.get(where, Version),
        _deployments(visit, name),
        visit.api.get(f"{where}/lineage", Graph),
        visit.api.get(f"{where}/card/check", CardCheck),
        visit.api.get(f"{where}/card/revisions", tuple[CardRevision, ...]),
    )
    return visit.page(
        "version.html",
        v=found,
        lineage=draw(graph),
        check=check,
        revisions=revisions,
        metadata=list(flattened(found.metadata)),
        deployments=[one for one in deployments if one.label == found.label],
        may_deploy=visit.may("deployments:write"),
    )


def flattened(tree: dict[str, Any], path: str = "") -> list[tuple[str, str]]:
    """The leaves of `tree` with their paths, for a list of facts."""
    found: list[tuple[str, str]] = []
    for name, value in tree.items():
        here = f"{path}.{name}" if path else str(name)
        if isinstance(value, dict):
            found += flattened(value, here)
        else:
            found.append((here, value if isinstance(value, str) else msgspec.json.encode(value).decode()))
    return found


async def confirm_promote(visit: Visit) -> Response:
    """The form to promote a version."""
    visit.must("deployments:write")
    name, label = visit.path("name"), visit.query("label")
    if not label:
        raise BadRequest("Which version is to be promoted was not said.", param="label")
    found, deployments, environments = await asyncio.gather(
        visit.api.get(at("models", name, "versions", label), Version),
        _deployments(visit, name),
        visit.api.get("/environments", list[dict[str, Any]]),
    )
    runs = {one.environment: one.label for one in deployments}
    names = sorted({str(one["name"]) for one in environments} | set(runs)) or list(_USUAL)
    return visit.page(
        "promote.html",
        name=name,
        label=found.label,
        environments=[(one, runs.get(one)) for one in names],
        reason=visit.query("reason"),
        may_override=visit.may("gates:override"),
    )


async def promote(visit: Visit) -> Response:
    """Promote."""
    form = await visit.form()
    name = visit.path("name")
    body: dict[str, Any] = {
        "model": name,
        "label": form.get("label", ""),
        "environment": form.get("environment", ""),
        "reason": form.get("reason", ""),
        "override": form.get("override", ""),
    }
    if form.get("how") == "canary":
        await visit.api.post("/canaries", body)
        return visit.to(at("canaries", name), "canary-started")
    await visit.api.post("/promote", body | {"generation": _generation(form)})
    return visit.to(at("models", name), "promoted")


async def confirm_clear(visit: Visit) -> Response:
    """The form to let a blocked version be deployed again."""
    visit.must("deployments:write")
    name, label, environment = visit.path("name"), visit.query("label"), visit.query("environment")
    blocks = await visit.api.get("/blocks", tuple[Block, ...], model=name, environment=environment)
    block = next((one for one in blocks if one.label == label), None)
    if block is None:
        raise NotFound(f"{name}:{label} is not blocked in {environment or 'that environment'}.")
    return visit.page("clear.html", name=name, block=block)


async def clear(visit: Visit) -> Response:
    """Let it be deployed again."""
    form = await visit.form()
    name = visit.path("name")
    body = {"model": name, **{field: form.get(field, "") for field in ("label", "environment", "reason")}}
    await visit.api.post("/blocks/clear", body)
    return visit.to(at("models", name), "cleared")


def _generation(form: dict[str, str]) -> int | None:
    """Of the deployment as the form showed it, if it said so: the change is refused if it has moved since."""
    text = form.get("generation", "")
    return int(text) if text.isdecimal() and len(text) < 16 else None


async def confirm_rollback(visit: Visit) -> Response:
    """The form to roll back, with what runs now and what would run then."""
    visit.must("deployments:write")
    name, environment = visit.path("name"), visit.query("environment")
    deployments, history = await asyncio.gather(
        _deployments(visit, name), visit.api.get(at("models", name, "history"), tuple[Revision, ...])
    )
    now = next((one for one in deployments if one.environment == environment), None)
    then = earlier(history, now) if now is not None else None
    if now is None or then is None:
        raise NotFound(f"{name} has no earlier version in {environment or 'that environment'} to go back to.")
    return visit.page(
        "rollback.html", name=name, environment=environment, now=now, then=then, reason=visit.query("reason")
    )


async def rollback(visit: Visit) -> Response:
    """Roll back."""
    form = await visit.form()
    name = visit.path("name")
    body = {
        "model": name,
        "environment": form.get("environment", ""),
        "to": form.get("to") or None,
        "reason": form.get("reason", ""),
        "generation": _generation(form),
    }
    await visit.api.post("/rollback", body)
    return visit.to(at("models", name), "rolled-back")
