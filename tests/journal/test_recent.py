from pathlib import Path

from penstock.journal.recent import recent
from penstock.journal.writer import Bounds, JournalWriter
from tests.journal.records import exchange, opened


def test_the_newest_exchanges_without_the_rest(tmp_path: Path) -> None:
    writer = JournalWriter.open(tmp_path, "w", loop=None, clock=lambda: 1.0, bounds=Bounds(segment_bytes=4000))
    for n in range(200):
        writer.append(opened(n))
        writer.append(exchange(n))
        writer.flush()
    every = [one.id for one in recent(tmp_path)]
    assert every == [exchange(n).id for n in range(200)]
    some = [one.id for one in recent(tmp_path, 5000)]
    assert 5 < len(some) < 60
    assert some == every[-len(some) :]
    newest = max(tmp_path.glob("*.pjl"))
    newest.write_bytes(newest.read_bytes()[:-3])
    assert [one.id for one in recent(tmp_path, 5000)][-1] == exchange(198).id
    writer.close()
