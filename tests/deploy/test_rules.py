"""The alerts: each has a page, each fires and keeps quiet in a case of its own, and all speak of metrics that exist."""

import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.journal.log_rules import TABLE as LOG_ALERTS
from tests.deploy.cases import CASES, Case
from tests.deploy.names import unknown

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules"
made: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "make_rules.py"))
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for file in RULES.glob("*.yaml")
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
RECORDED = dict(made["recorded"]())


def promtool(*words: str) -> str:
    done = subprocess.run(["promtool", *words], check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_files_are_what_the_script_makes() -> None:
    found = {file.name: file.read_text() for file in RULES.iterdir()}
    assert found == made["files"](), "run scripts/make_rules.py"
    assert made["PAGE"].read_text() == made["page"](), "run scripts/make_rules.py"


def test_promtool_takes_the_rules() -> None:
    files = sorted(map(str, RULES.glob("*.yaml")))
    assert promtool("check", "rules", *files).count("SUCCESS") == len(files)


def test_every_rule_reads_metrics_and_labels_that_exist() -> None:
    exprs = [rule["expr"] for rule in ALERTS.values()] + list(RECORDED.values())
    assert [problem for expr in exprs for problem in unknown(expr, RECORDED)] == []
    assert unknown("sum by (rout) (penstock_requests_total)", RECORDED)
    assert unknown("rate(penstock_requests[5m])", RECORDED)


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    pages = {rule["annotations"]["runbook_url"] for rule in ALERTS.values()}
    pages |= {f"docs/runbooks/{one.runbook}.md" for one in LOG_ALERTS}
    there = {f"docs/runbooks/{page.name}" for page in (ROOT / "docs" / "runbooks").glob("*.md")}
    assert pages == there
    for name, rule in ALERTS.items():
        text = (ROOT / rule["annotations"]["runbook_url"]).read_text()
        assert f"`{name}`" in text, f"{rule['annotations']['runbook_url']} does not name {name}"
        for part in ("## Symptom", "## Likely causes", "## Queries", "## Remedy"):
            assert part in text, (name, part)
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"].endswith(".")


def test_the_queries_of_the_pages_read_metrics_that_exist() -> None:
    for page in (ROOT / "docs" / "runbooks").glob("*.md"):
        for block in re.findall(r"```promql\n(.*?)```", page.read_text(), re.DOTALL):
            assert unknown(block, RECORDED) == [], page.name


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    assert set(CASES) == set(ALERTS)


@pytest.mark.parametrize("fires", [True, False], ids=["fires", "quiet"])
def test_alerts_fire_when_they_should_and_not_else(tmp_path: Path, *, fires: bool) -> None:
    def group(name: str, case: Case) -> dict[str, Any]:
        return {
            "name": name,
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}})',
                    "eval_time": f"{case.at}m",
                    "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                }
            ],
        }

    files = []
    for part, alerts in made["ALERTS"].items():
        needed = ["recording", part] if part in {"objectives", "load"} else [part]
        tests = {
            "rule_files": [str(RULES / f"{name}.yaml") for name in needed],
            "evaluation_interval": "1m",
            "tests": [group(alert.name, CASES[alert.name][0 if fires else 1]) for alert in alerts],
        }
        files.append(tmp_path / f"{part}.yaml")
        files[-1].write_text(yaml.safe_dump(tests))
    assert promtool("test", "rules", *map(str, files)).count("SUCCESS") == len(files)
