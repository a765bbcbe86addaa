"""The documentation in the console: every page renders, and what alerts and diagnoses name is there."""

import re
from pathlib import Path
from urllib.parse import urljoin

import pytest
import yaml

from penstock.console.manual import list_pages, manual_folder, read_page, render_page, runbook_address
from penstock.core.errors import NotFound
from penstock.journal.log_rules import TABLE

ROOT = Path(__file__).parents[2]
FOLDER = manual_folder()
RULES = [
    rule
    for file in (ROOT / "deploy" / "prometheus" / "rules").iterdir()
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
]
NAMED = sorted(
    {rule["annotations"]["runbook_url"] for rule in RULES if "alert" in rule}
    | {f"docs/runbooks/{alert.runbook}.md" for alert in TABLE}
)


def pages(folder: str = "") -> list[str]:
    found = []
    for name, _ in list_pages(FOLDER, folder):
        found += pages(folder + name) if name.endswith("/") else [folder + name]
    return found


def test_all_alerts_name_a_page_that_is_served() -> None:
    assert len(NAMED) > 15
    for told in NAMED:
        address = runbook_address(told)
        assert address.startswith("/docs/runbooks/")
        assert "## Remedy" in read_page(FOLDER, address.removeprefix("/docs/"))
    assert runbook_address("runbooks/queue.md") == "/docs/runbooks/queue.md"
    assert runbook_address("https://wiki.example/x") == "https://wiki.example/x"
    assert runbook_address("javascript:alert(1)") == runbook_address("//evil.example/x.md") == ""


def test_every_page_renders_and_runbooks_link_to_pages_that_are_there() -> None:
    known = set(pages())
    assert {"monitoring.md", "runbooks/queue.md", "reference/metrics.md"} <= known
    for page in known:
        html = render_page(read_page(FOLDER, page))
        assert "<script" not in html and " style=" not in html
        links = re.findall(r'href="([^"#]+)', html)
        if page.startswith("runbooks/"):
            for link in (one for one in links if "//" not in one):
                assert urljoin(f"/docs/{page}", link).removeprefix("/docs/") in known, f"{page}: {link}"


@pytest.mark.parametrize(
    "path",
    ["../README.md", "runbooks/../../README.md", "/etc/passwd", "runbooks/queue", ".hidden.md", "x.md", "a//b.md"],
)
def test_nothing_else_is_served(path: str) -> None:
    with pytest.raises(NotFound):
        read_page(FOLDER, path)
    with pytest.raises(NotFound):
        list_pages(FOLDER, path)


def test_markdown_cannot_carry_script() -> None:
    html = render_page("# T\n\n<script>alert(1)</script> [a](javascript:alert(1)) [b](//evil.example) ![c](x.png)\n")
    assert "<script" not in html and 'href="javascript' not in html and 'href="//' not in html and "<img" not in html
