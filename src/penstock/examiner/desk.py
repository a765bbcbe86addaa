"""Control as the examiner sees it: where work comes from, and where it is told."""

from typing import Any

import httpx
import msgspec

from penstock.core.errors import Unavailable
from penstock.core.jobs import BuildJob, ExaminerJob

_EVALUATIONS = "/internal/v1/evaluations"
_BUILDS = "/internal/v1/builds"


class Desk:
    """A client of control's internal API. The caller closes `client`, which shows the service token."""

    def __init__(self, client: httpx.AsyncClient, holder: str) -> None:
        self._client = client
        self._holder = holder

    async def claim(self, engine: str) -> ExaminerJob | None:
        """The evaluation to work on; None: none waits.

        Raises:
            Unavailable: if control does not answer.
        """
        told = await self._post(f"{_EVALUATIONS}/claim", {"engine": engine})
        return msgspec.convert(told, ExaminerJob) if told else None

    async def tell(self, job: str, items: list[dict[str, Any]]) -> bool:
        """What came of items; whether to go on."""
        return bool((await self._post(f"{_EVALUATIONS}/{job}/items", {"items": items}))["go_on"])

    async def finish(self, job: str, error: str = "") -> None:
        """All of it is told, or cannot be had."""
        await self._post(f"{_EVALUATIONS}/{job}/finish", {"error": error})

    async def claim_build(self) -> BuildJob | None:
        """The build to make; None: none waits.

        Raises:
            Unavailable: if control does not answer.
        """
        told = await self._post(f"{_BUILDS}/claim", {})
        return msgspec.convert(told, BuildJob) if told else None

    async def tell_step(self, job: str, step: str) -> bool:
        """What begins now, "" being nothing; whether to go on."""
        return bool((await self._post(f"{_BUILDS}/{job}/step", {"step": step}))["go_on"])

    async def hand_in(self, job: str, converter: str, error: str = "") -> None:
        """The build lies in its folder, or cannot be made."""
        await self._post(f"{_BUILDS}/{job}/finish", {"converter": converter, "error": error})

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            reply = await self._client.post(path, json={"holder": self._holder, **body})
        except httpx.HTTPError as error:
            raise Unavailable(f"Control does not answer ({type(error).__name__}).", retry_after=1.0) from None
        if reply.status_code != 200:
            raise Unavailable(f"Control answered {reply.status_code}: {reply.text[:200]}", retry_after=1.0)
        told: dict[str, Any] = reply.json()
        return told
