"""What is wrong with the installation, the most likely cause first."""

import msgspec
from starlette.responses import Response

from penstock.console.visit import Visit
from penstock.diagnosis.cause import Cause


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What the API says; what it drew it from is not read here."""

    healthy: bool
    causes: tuple[Cause, ...] = ()


async def show(visit: Visit) -> Response:
    """The page."""
    found = await visit.api.get("/diagnosis", Diagnosis)
    return visit.page("health.html", healthy=found.healthy, causes=found.causes)
