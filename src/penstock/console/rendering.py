"""Templates and static files: everything escaped, undefined names refused, files named by their content."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from penstock.access.principals import Scope
from penstock.console import cards, figures, manual

HERE = Path(__file__).parent
STATIC = HERE / "static"
PAGES: tuple[tuple[str, str, Scope], ...] = (
    ("Overview", "/", "tenant"),
    ("Requests", "/requests", "tenant"),
    ("Models", "/models", "installation"),
    ("Pipelines", "/pipelines", "installation"),
    ("Drift", "/drift", "installation"),
    ("Experiments", "/experiments", "installation"),
    ("Playground", "/playground", "tenant"),
    ("Keys", "/access", "tenant"),
    ("Health", "/health", "installation"),
)


def make_templates() -> Environment:
    """The template environment, with the console's filters and globals."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("number", "seconds", "span", "percent", "money", "size", "signed", "short", "when"):
        environment.filters[name] = getattr(figures, name)
    environment.filters["card"] = cards.render_card
    environment.filters["runbook"] = manual.runbook_address
    environment.globals["asset"] = _asset_names()
    environment.globals["pages"] = PAGES
    return environment


def _asset_names() -> Callable[[str], str]:
    marks: dict[str, str] = {
        path.relative_to(STATIC).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:10]
        for path in STATIC.rglob("*")
        if path.is_file()
    }

    def asset(name: str) -> str:
        return f"/static/{name}?v={marks.get(name, '0')}"

    return asset


class KeptFiles(StaticFiles):
    """Static files that browsers keep: their URLs change with their content."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """The answer for one file, with leave to keep it."""
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response
