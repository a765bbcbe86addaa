"""Debian's Prometheus and Alertmanager over a running installation, with the files of deploy/ and other addresses."""

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tests.ports import free_ports
from tests.system.starter import ROOT, Up
from tests.system.waiting import until

DEPLOY = ROOT / "deploy"


class Monitors(msgspec.Struct, frozen=True, kw_only=True):
    """The two, running. `nobody` is an address at which nobody answers."""

    prometheus: str
    alertmanager: str
    config: Path
    nobody: str

    def ask(self, path: str, **query: str) -> Any:
        """What Prometheus' API answers."""
        return json.loads(fetched(f"{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(query)}"))["data"]

    def samples(self, expr: str) -> list[float]:
        """The values of an expression, now."""
        return [float(one["value"][1]) for one in self.ask("query", query=expr)["result"]]

    def without_nobody(self) -> None:
        """Prometheus no longer looks for who is not there."""
        self.config.write_text(self.config.read_text().replace(f", '{self.nobody}'", ""))
        request = urllib.request.Request(f"{self.prometheus}/-/reload", method="POST")
        urllib.request.urlopen(request, timeout=30).close()


def fetched(url: str) -> bytes:
    """The body at `url`."""
    with urllib.request.urlopen(url, timeout=30) as reply:
        return bytes(reply.read())


def _address(url: str) -> str:
    return url.partition("://")[2]


def ship_port(up: Up) -> int:
    """Where the shipper answers."""
    port: int = json.loads((up.data / "run" / "ship.json").read_text())["port"]
    return port


def _configured(up: Up, folder: Path, alertmanager: int, nobody: str) -> Path:
    """deploy/prometheus in `folder`: it asks every second, waits for nothing, and `nobody` is one shipper more."""
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    for there, here in {
        "penstock:8080": _address(up.gateway),
        "penstock:8081": _address(up.control),
        "alertmanager:9093": f"127.0.0.1:{alertmanager}",
        "/run/penstock/monitoring.token": str(up.data / "monitoring.token"),
    }.items():
        assert there in text
        text = text.replace(there, here)
    config = yaml.safe_load(re.sub(r"interval: \d+s", "interval: 1s", text))
    ship = next(job for job in config["scrape_configs"] if job["job_name"] == "ship")
    assert ship["static_configs"][0]["targets"] == ["penstock:8083"]
    ship["static_configs"][0]["targets"] = [f"127.0.0.1:{ship_port(up)}", nobody]
    (folder / "rules").mkdir(parents=True)
    for rules in (DEPLOY / "prometheus" / "rules").glob("*.yaml"):
        (folder / "rules" / rules.name).write_text(re.sub(r"for: \w+", "for: 0s", rules.read_text()))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config, default_flow_style=None))
    return folder / "prometheus.yml"


def _alertmanager_config(up: Up, folder: Path) -> Path:
    text = (DEPLOY / "alertmanager" / "alertmanager.yml").read_text()
    text = text.replace("penstock:8081", _address(up.control))
    text = text.replace("/run/penstock/monitoring.token", str(up.data / "monitoring.token"))
    file = folder / "alertmanager.yml"
    file.write_text(re.sub(r"group_(wait|interval): \w+", r"group_\1: 1s", text))
    return file


@contextmanager
def _serving(command: list[str], log: Path, ready: str) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=log.parent)
    try:

        def answers() -> bool | None:
            assert process.poll() is None, log.read_text()
            try:
                return bool(fetched(ready))
            except OSError:
                return None

        until(answers, 60)
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def monitors(up: Up, folder: Path) -> Iterator[Monitors]:
    """Both servers over `up`, gone when the block ends."""
    first, second, third = free_ports(3)
    nobody = f"127.0.0.1:{third}"
    config = _configured(up, folder / "prometheus", second, nobody)
    made = Monitors(
        prometheus=f"http://127.0.0.1:{first}",
        alertmanager=f"http://127.0.0.1:{second}",
        config=config,
        nobody=nobody,
    )
    tells = [
        "prometheus-alertmanager", f"--config.file={_alertmanager_config(up, folder)}", f"--storage.path={folder / 'am'}",
        f"--web.listen-address=127.0.0.1:{second}", "--cluster.listen-address=",
    ]  # fmt: skip
    asks = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{first}", "--web.enable-lifecycle",
        "--enable-feature=exemplar-storage",
    ]  # fmt: skip
    with (
        _serving(tells, folder / "alertmanager.log", f"{made.alertmanager}/-/ready"),
        _serving(asks, folder / "prometheus.log", f"{made.prometheus}/-/ready"),
    ):
        yield made
