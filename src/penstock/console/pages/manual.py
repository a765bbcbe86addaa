"""The documentation: its pages, and lists of them."""

import asyncio

from starlette.responses import RedirectResponse, Response

from penstock.console.manual import list_pages, manual_folder, read_page, render_page, title_of
from penstock.console.visit import Visit


async def show(visit: Visit) -> Response:
    """A page, or what is in a folder."""
    path = visit.path("path")
    folder = manual_folder()
    if path.endswith(".md"):
        text = await asyncio.to_thread(read_page, folder, path)
        return visit.page("manual.html", path=path, title=title_of(text), body=render_page(text), entries=[])
    if path and not path.endswith("/"):
        return RedirectResponse(f"/docs/{path}/", status_code=307)
    pages = await asyncio.to_thread(list_pages, folder, path)
    return visit.page("manual.html", path=path, title=path.strip("/") or "Documentation", body="", entries=pages)
