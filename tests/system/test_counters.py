"""A gateway worker is killed again and again under load: what Prometheus is told never goes down and never doubles."""

import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock.core.exchange import Exchange
from penstock.journal.inspect import cat
from tests.system.program import penstock
from tests.system.starter import Up, running
from tests.system.test_kill import STACK, House, mock_engine
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
Told = dict[tuple[str, ...], float]


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[tuple[Up, str]]:
    """Two workers whose route `mock` leads to an engine of ours; and a key for it."""
    with mock_engine(0.0) as url, running(tmp_path / "data", "--empty", "--workers", "2") as up:
        stack = tmp_path / "stack.yaml"
        stack.write_text(STACK % url)
        steps = penstock(up, "apply", "-f", str(stack))["steps"]
        yield up, next(step["told"]["key"] for step in steps if step["kind"] == "Key")


class Asking:
    """A client that asks one thing after another, whoever answers; `answered` counts the answers that it got whole."""

    def __init__(self, url: str, key: str) -> None:
        self.answered = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, args=(url, key), daemon=True)
        self._thread.start()

    def _ask(self, url: str, key: str) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            body = {"model": "mock", "messages": [{"role": "user", "content": "one two"}], "stream": number % 2 == 0}
            try:
                answer = httpx.post(
                    f"{url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}, timeout=30
                )
                self.answered += answer.status_code == 200
            except httpx.HTTPError:
                self._stop.wait(0.02)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)


def counters(up: Up) -> Told:
    """Every counter and histogram of the gateway, by name and labels; not those of the processes themselves."""
    text = until(lambda: scraped(up), 30, 0.01)
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        if family.type in {"counter", "histogram"} and not family.name.startswith("process_")
        for sample in family.samples
    }


def scraped(up: Up) -> str | None:
    try:
        answer = httpx.get(f"{up.gateway}/metrics", timeout=10)
    except httpx.HTTPError:  # by the one that was killed
        return None
    return answer.text if answer.status_code == 200 else None


def total(told: Told, name: str, *labels: str) -> float:
    return sum(value for key, value in told.items() if key[0] == name and set(labels) <= set(key))


def killed_often(up: Up, key: str, times: int) -> None:
    house = House(up)
    asking = Asking(up.gateway, key)
    try:
        until(lambda: asking.answered > 3 or None, 60)
        before = counters(up)
        for number in range(times):
            goal = asking.answered + 5
            until(lambda goal=goal: asking.answered > goal or None, 60, 0.01)  # type: ignore[misc]
            stop = threading.Event()
            seen = [before]
            watcher = threading.Thread(target=watch, args=(up, seen, stop))
            watcher.start()
            house.kill(f"gateway-{number % 2}")
            stop.set()
            watcher.join(60)
            before = counters(up)
            check([*seen, before])
    finally:
        asking.stop()
    records = [one for _, _, one in cat(up.data / "journal") if isinstance(one, Exchange)]

    def settled() -> Told | None:
        told = counters(up)
        return told if total(told, "penstock_requests_total") >= len(records) else None

    told = until(settled, 30)
    assert len(records) >= asking.answered >= 6 * times
    assert total(told, "penstock_requests_total") == len(records)
    assert total(told, "gen_ai_server_request_duration_seconds_count") == len(records)
    assert total(told, "penstock_tenant_requests_total", "tenant=acme") == sum(one.tenant == "acme" for one in records)
    for outcome in {one.outcome for one in records}:
        expected = sum(one.outcome == outcome for one in records)
        assert total(told, "penstock_requests_total", f"outcome={outcome}") == expected
    spent = sum(one.phases.done for one in records) * 1e-9
    assert total(told, "penstock_phase_seconds_total") == pytest.approx(spent)


def watch(up: Up, seen: list[Told], stop: threading.Event) -> None:
    """Scrapes on and on."""
    while not stop.is_set():
        seen.append(counters(up))
        time.sleep(0.02)


def check(seen: list[Told]) -> None:
    """No series went down or away."""
    for earlier, later in pairwise(seen):
        lower = {key: (value, later.get(key)) for key, value in earlier.items() if later.get(key, -1.0) < value}
        assert lower == {}


def test_counters_neither_fall_nor_double_over_kills(installed: tuple[Up, str]) -> None:
    killed_often(*installed, times=2)


@pytest.mark.soak
def test_nor_over_ten(installed: tuple[Up, str]) -> None:
    killed_often(*installed, times=10)
