"""What stands in deploy/ says what is so: settings, ports and metrics exist, and nothing is published to the world."""

import json
import re
import runpy
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from penstock.core.settings import Settings, load_settings
from tests.deploy.names import unknown

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BOARDS = DEPLOY / "grafana" / "dashboards"
RULES: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "make_rules.py"))
LEFT_BY_GAUGES = {"instance", "worker", "pool", "route", "experiment", "arm"}  # labels of series that no sum takes away
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


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
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    settings = Settings()
    asked = {name: job["static_configs"][0]["targets"] for name, job in jobs.items() if name != "engine"}
    assert asked == {
        "gateway": [f"penstock:{settings.gateway.port}"],
        "control": [f"penstock:{settings.control.port}"],
        "ship": [f"penstock:{settings.ship.port}"],
    }
    found = jobs["engine"]["http_sd_configs"][0]
    assert found["url"] == f"http://penstock:{settings.control.port}/api/v1/targets"
    told = yaml.safe_load((DEPLOY / "alertmanager" / "alertmanager.yml").read_text())["receivers"][0][
        "webhook_configs"
    ][0]
    assert told["url"] == f"http://penstock:{settings.control.port}/api/v1/alerts"
    token = COMPOSE["services"]["penstock"]["environment"]["PENSTOCK_CONTROL_MONITORING_TOKEN_FILE"]
    for one in (found, told["http_config"]):
        assert one["authorization"]["credentials_file"] == token
    folder = str(Path(token).parent)
    for service in ("penstock", "prometheus", "alertmanager"):
        volumes = COMPOSE["services"][service]["volumes"]
        assert any(volume.startswith(f"monitoring:{folder}") for volume in volumes)
    assert config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == ["alertmanager:9093"]


def test_alertmanager_and_prometheus_take_their_files() -> None:
    for command in (
        ["amtool", "check-config", f"{DEPLOY}/alertmanager/alertmanager.yml"],
        ["promtool", "check", "config", "--syntax-only", f"{DEPLOY}/prometheus/prometheus.yml"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_alertmanager_keeps_back_are_alerts_that_exist() -> None:
    alerts = {alert.name for group in RULES["ALERTS"].values() for alert in group}
    config = yaml.safe_load((DEPLOY / "alertmanager" / "alertmanager.yml").read_text())
    for rule in config["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            pattern = re.fullmatch(r'alertname=~?"(.*)"', matcher)
            if pattern is not None:
                matching = {name for name in alerts if re.fullmatch(pattern[1], name)}
                assert len(matching) == len(pattern[1].split("|")), matcher


def test_the_dashboards_are_what_the_script_makes() -> None:
    found = {file.name: file.read_text() for file in BOARDS.glob("*.json")}
    assert found == runpy.run_path(str(ROOT / "scripts" / "make_dashboards.py"))["files"](), (
        "run scripts/make_dashboards.py"
    )
    assert set(found) == {
        f"penstock-{name}.json" for name in ("overview", "model", "tenant", "experiment", "safety", "engine")
    }


@pytest.mark.parametrize("file", sorted(BOARDS.glob("*.json")), ids=lambda file: file.stem)
def test_the_dashboards_show_metrics_and_labels_that_exist(file: Path) -> None:
    recorded = dict(RULES["recorded"]())
    board = json.loads(file.read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            assert unknown(target["expr"], recorded) == [], panel["title"]
            grouped = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert grouped <= set(re.findall(r"\w+", target["expr"])) | LEFT_BY_GAUGES, (panel["title"], grouped)
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    used = {
        (panel["datasource"]["type"], panel["datasource"]["uid"]) for panel in board["panels"] if "datasource" in panel
    }
    assert used == {(source["type"], source["uid"])}


# What Grafana's page on provisioning (grafana.com/docs/grafana/latest/administration/provisioning) names; a key that it does not know is passed over in silence.
SOURCE_KEYS = {
    "name",
    "type",
    "access",
    "orgId",
    "uid",
    "url",
    "isDefault",
    "jsonData",
    "secureJsonData",
    "version",
    "editable",
}
PROVIDER_KEYS = {
    "name",
    "orgId",
    "folder",
    "folderUid",
    "type",
    "disableDeletion",
    "updateIntervalSeconds",
    "allowUiUpdates",
    "options",
}


def test_grafana_finds_its_source_and_its_dashboards_without_a_hand() -> None:
    grafana = COMPOSE["services"]["grafana"]
    mounts = dict(str(volume).split(":")[:2] for volume in grafana["volumes"])
    inside = {there: (DEPLOY / here).resolve() for here, there in mounts.items() if here.startswith(".")}
    home = inside["/etc/grafana/provisioning"]
    (sources,) = (yaml.safe_load(file.read_text()) for file in (home / "datasources").iterdir())
    (providers,) = (yaml.safe_load(file.read_text()) for file in (home / "dashboards").iterdir())
    assert sources["apiVersion"] == providers["apiVersion"] == 1
    for source in sources["datasources"]:
        assert set(source) <= SOURCE_KEYS
        assert {"name", "type", "access"} <= set(source)
        assert source["access"] == "proxy"
        address = urlsplit(source["url"])
        assert any(str(port).endswith(f":{address.port}") for port in COMPOSE["services"][address.hostname]["ports"])
    assert [source.get("isDefault") for source in sources["datasources"]] == [True]
    (provider,) = providers["providers"]
    assert set(provider) <= PROVIDER_KEYS
    assert provider["type"] == "file"
    assert inside[provider["options"]["path"]] == BOARDS.resolve()
    boards = [json.loads(file.read_text()) for file in BOARDS.glob("*.json")]
    assert len({board["uid"] for board in boards}) == len({board["title"] for board in boards}) == len(boards)
    assert not [board["title"] for board in boards if board.get("id")], "an id belongs to one Grafana alone"
