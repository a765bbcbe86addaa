"""The endpoints of /api/v1 beside those that `build_app` has of itself: one list, for the process, the reference and the tests."""

from pathlib import Path

from fastapi import APIRouter

from penstock.control.api.analytics import analytics_router
from penstock.control.api.content import content_router
from penstock.control.api.diagnosis import Look, diagnosis_router
from penstock.control.api.evaluators import Workers, evaluators_router
from penstock.control.api.experiments import experiments_router
from penstock.control.api.keystore import key_hosts_router
from penstock.control.api.statistics import statistics_router
from penstock.control.content.feedback_export import Exporter, feedback_router
from penstock.control.content.keystore import SharedKeystore
from penstock.control.content.opened import Contents
from penstock.control.context import Control
from penstock.control.figures.explorer import Explorer
from penstock.control.figures.statements import Statements
from penstock.control.readiness import Readiness
from penstock.journal.keystore import Keystore


def public_routers(
    control: Control,
    contents: Contents,
    keys: Keystore,
    shared: SharedKeystore | None,
    readiness: Readiness,
    workers: Workers,
    look: Look | None,
) -> tuple[APIRouter, ...]:
    """The routers over these parts; `workers` are the evaluators of this process, `look` looks at its machine."""
    settings = control.settings
    statements = Statements(settings, Path(settings.analytics.folder or control.data / "analytics"))
    return (
        experiments_router(),
        statistics_router(Explorer(control, statements)),
        content_router(contents),
        key_hosts_router(shared),
        feedback_router(Exporter(control, keys)),
        evaluators_router(workers),
        diagnosis_router(readiness, look),
        analytics_router(statements),
    )
