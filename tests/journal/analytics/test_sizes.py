import re
from pathlib import Path

from bench.sizes import measured, table

PAGE = Path(__file__).parents[3] / "docs" / "analytics.md"


async def test_the_page_shows_what_is_measured(tmp_path: Path) -> None:
    found = await measured(tmp_path, 600)
    page = PAGE.read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\| ([^|]+) \| (\d+) \|", page, re.MULTILINE))
    made = dict(re.findall(r"^\| ([^|]+) \| (\d+) \|", table(found, 600), re.MULTILINE))
    assert shown.keys() == made.keys()
    for name in ("journal", "log document (JSON, before Elasticsearch's index)"):  # the others shrink with their number
        assert abs(int(made[name]) / int(shown[name]) - 1) < 0.05, f"{name}: run python -m bench.sizes"
