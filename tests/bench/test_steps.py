"""What the bench calls silent is: nothing is noted in a journal, opened, or counted, so that the difference is the whole cost."""

from pathlib import Path

import pytest

from bench.load import HERE
from bench.steps import Bench, marks_us, snapshot
from penstock.core.exchange import Exchange, Opened
from penstock.journal.inspect import cat

REQUESTS = 8


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("silent", [False, True], ids=["loud", "silent"])
async def test_off_is_off(tmp_path: Path, silent: bool, stream: bool) -> None:
    body = (HERE / ("body1k_stream.json" if stream else "body1k.json")).read_bytes()
    folder = tmp_path / "journal" / "bench"
    folder.parent.mkdir()
    bench = Bench(snapshot(cache=False), folder, body=body, stream=stream, silent=silent, connections=2)
    await bench.start()
    await bench.run(REQUESTS)
    bench.gateway.recorder.flush()
    cells, _ = bench.gateway.meters.numbers()
    counted = sum(cells["penstock_requests_total"].values())
    records = [record for _, _, record in cat(tmp_path / "journal")] if folder.exists() else []
    await bench.client.close()
    await bench.server.drain(0)
    assert counted == (0 if silent else REQUESTS)
    assert sum(isinstance(one, Exchange) for one in records) == (0 if silent else REQUESTS)
    assert sum(isinstance(one, Opened) for one in records) == (REQUESTS if stream and not silent else 0)


def test_the_marks_cost_something_and_not_much() -> None:
    assert 0.0 < marks_us(2000, 3) < 100.0
