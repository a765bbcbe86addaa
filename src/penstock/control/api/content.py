"""`/api/v1/requests/ID/content` and `/api/v1/subjects/forget`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import Field

from penstock.access.principals import Principal
from penstock.control.auth import needs, needs_in_tenant
from penstock.control.content.opened import Contents
from penstock.control.specs.resources import Name, Spec

Reader = Annotated[Principal, Depends(needs_in_tenant("content:read"))]
Machinist = Annotated[Principal, Depends(needs("content:read"))]  # a journal holds all tenants' records
Eraser = Annotated[Principal, Depends(needs_in_tenant("subjects:forget"))]
_Text = Annotated[str, Field(min_length=1, max_length=512)]


class ForgetBody(Spec):
    """Who is to be forgotten: one of `user`, `session` and `everyone`."""

    tenant: Name
    user: _Text | None = Field(default=None, description="As requests named it in `user`.")
    session: _Text | None = Field(
        default=None, description="As requests named it in x-penstock-session; of those alone that named no user."
    )
    everyone: bool = Field(default=False, description="All of the tenant's, those who named nobody too.")
    reason: str = Field(default="", max_length=1000, description="For the audit trail; name nobody here.")


class ReadingBody(Spec):
    """What is about to be read."""

    source: str = Field(min_length=1, max_length=200, description="Host, folder and worker.")


def content_router(contents: Contents) -> APIRouter:
    """The routes, to stand below /api/v1."""
    router = APIRouter(tags=["content"])

    @router.get("/requests/{request_id}/content")
    async def read(who: Reader, request_id: str) -> dict[str, Any]:
        """What was asked and answered, and the texts of feedback and reports on it, where they were kept and their keys are there. Each reading leaves an audit event."""
        return await contents.read(who, request_id)

    @router.post("/content/readings", status_code=201)
    async def noted(who: Machinist, body: ReadingBody) -> dict[str, str]:
        """Write down that content is read out of a journal on its own machine: `penstock journal cat --content` asks this first."""
        await contents.noted(who, body.source)
        return {"source": body.source}

    @router.post("/subjects/forget")
    async def forget(who: Eraser, body: ForgetBody) -> dict[str, Any]:
        """Destroy the keys of a subject: what its requests and their answers said can be read nowhere any more, in no backup of the journal either.

        A session's are the requests alone that named no user. Texts of feedback and reports go with the requests that they are about.
        """
        who.held_to(body.tenant)
        return await contents.forget(
            who,
            body.tenant,
            user=body.user or "",
            session=body.session or "",
            everyone=body.everyone,
            reason=body.reason,
        )

    return router
