"""What stands in deploy/ says what is so: settings, ports and metrics exist, and nothing is published to the world."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from penstock.core.metrics import TABLE
from penstock.core.settings import Settings, load_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
_SUFFIXES = ("_bucket", "_sum", "_count")


def test_the_stack_sets_settings_that_exist() -> None:
    variables = COMPOSE["services"]["penstock"]["environment"]
    plain = {name: re.sub(r"\$\{\w+:-(\w*)\}", r"\1", str(value)) for name, value in variables.items()}
    settings = load_settings(plain)
    assert settings.control.database == "postgresql+asyncpg://penstock:penstock@database/penstock"
    assert settings.gateway.workers == 2


def test_the_image_sets_settings_that_exist() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    found = dict(re.findall(r"(PENSTOCK_[A-Z_]+)=(\S+)", text))
    assert load_settings(found).gateway.host == "0.0.0.0"


def test_ports_are_published_on_the_loopback_alone() -> None:
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_prometheus_asks_where_processes_answer() -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    asked = {job["job_name"]: job["static_configs"][0]["targets"][0] for job in jobs}
    settings = Settings()
    assert asked == {
        "gateway": f"penstock:{settings.gateway.port}",
        "control": f"penstock:{settings.control.port}",
        "ship": f"penstock:{settings.ship.port}",
        "engine": f"penstock:{settings.engine.port}",
    }


def test_the_dashboard_shows_metrics_and_labels_that_exist() -> None:
    known = {entry.name: entry for entry in TABLE}
    board = json.loads((DEPLOY / "grafana" / "dashboards" / "penstock.json").read_text())
    shown = set()
    for panel in board["panels"]:
        for target in panel["targets"]:
            for word in re.findall(r"\b(?:penstock|gen_ai)_[a-z_]+(?=[\[) ]|$)", target["expr"]):
                if word in {"gen_ai_request_model", "gen_ai_token_type"}:
                    continue
                base = next((word.removesuffix(s) for s in _SUFFIXES if word.endswith(s)), word)
                entry = known.get(word) or known[base]
                shown.add(entry.name)
                labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                assert labels <= set(entry.labels), (panel["title"], labels)
    assert len(shown) >= 12
