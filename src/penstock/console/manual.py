"""The project's own documentation, as pages: where its files are, and how its Markdown becomes HTML."""

import re
import sys
from pathlib import Path

from markupsafe import Markup

from penstock.console.markdown import PlainMarkdown
from penstock.core.errors import NotFound

_PAGE = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_-]*/)*[A-Za-z0-9][A-Za-z0-9_-]*\.md")
_FOLDER = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_-]*/)*")
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_INSTALLED = Path(sys.prefix) / "share" / "penstock" / "docs"
_SOURCE = Path(__file__).parents[3] / "docs"


class _Manual(PlainMarkdown):
    """Links go to http(s), or to another page, relative to the one that they stand on."""

    def validateLink(self, url: str) -> bool:  # noqa: N802 - the library's name
        """Whether `url` may stand in a link."""
        return url.startswith(("http://", "https://", "#")) or (":" not in url and not url.startswith("/"))


_MARKDOWN = _Manual()


def manual_folder() -> Path:
    """Where the pages are: those of the source tree, if the program runs from one, else those that were installed with it."""
    return _SOURCE if (_SOURCE / "runbooks").is_dir() else _INSTALLED


def read_page(folder: Path, path: str) -> str:
    """The Markdown of the page `path`, such as `runbooks/queue.md`.

    Raises:
        NotFound: if there is no such page.
    """
    file = folder / path
    if not _PAGE.fullmatch(path) or not file.is_file():
        raise NotFound(
            f"There is no page {path!r} in the documentation.", hint="/docs/ lists the pages that there are."
        )
    return file.read_text(encoding="utf-8")


def list_pages(folder: Path, path: str) -> list[tuple[str, str]]:
    """The pages and folders in the folder `path` (such as `runbooks/`; "": all of it), each as its address from there and its title.

    Raises:
        NotFound: if there is no such folder.
    """
    place = folder / path
    if not _FOLDER.fullmatch(path) or not place.is_dir():
        raise NotFound(
            f"There is no folder {path!r} in the documentation.", hint="/docs/ lists the pages that there are."
        )
    pages = [(one.name, title_of(one.read_text(encoding="utf-8"))) for one in sorted(place.glob("*.md"))]
    return pages + [(f"{one.name}/", one.name) for one in sorted(place.iterdir()) if one.is_dir()]


def title_of(text: str) -> str:
    """What a page is called."""
    found = _TITLE.search(text)
    return found[1] if found is not None else "Documentation"


def render_page(text: str) -> Markup:
    """The page's HTML, without its title."""
    body = _TITLE.sub("", text, count=1)
    tokens = _MARKDOWN.parse(body)
    for token in tokens:
        if token.attrs:
            token.attrs.pop("style", None)  # of aligned table cells: the policy forbids inline style
    return Markup(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))  # noqa: S704 - html is off in the parser


def runbook_address(told: str) -> str:
    """Where the console shows the runbook that an alert (`docs/runbooks/NAME.md`) or a diagnosis (`runbooks/NAME.md`) names; "" if it names none of ours.

    What is a web address already stays one.
    """
    if told.startswith(("http://", "https://")):
        return told
    path = told.removeprefix("docs/")
    return f"/docs/{path}" if _PAGE.fullmatch(path) else ""
