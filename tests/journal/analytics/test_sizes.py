import re
import shutil
from pathlib import Path

import pytest

from bench.series import SCRAPE_S, count, sample_bytes
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


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
def test_the_page_counts_the_series_of_every_metric() -> None:
    (told,) = re.findall(
        r"^\| metrics in Prometheus: (\d+) series, one sample in (\d+) s, ([\d.]+) bytes each \|",
        PAGE.read_text(),
        re.MULTILINE,
    )
    assert int(told[1]) == SCRAPE_S
    assert abs(int(told[0]) / count() - 1) < 0.1, "run python -m bench.sizes"
    assert abs(sample_bytes(60) / float(told[2]) - 1) < 0.5, "an index weighs more on few series"
    config = (Path(__file__).parents[3] / "deploy" / "prometheus" / "prometheus.yml").read_text()
    assert f"scrape_interval: {SCRAPE_S}s" in config
