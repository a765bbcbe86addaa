import os
import random
from pathlib import Path

import msgspec

from penstock.core.exchange import Content
from penstock.journal.content import Said
from penstock.journal.format import HEADER_BYTES, Position, segment_name
from penstock.journal.inspect import cat, find, stats, tail, verify, workers
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.masterkey import Wrapping
from penstock.journal.reader import Damage, JournalReader, iterate
from penstock.journal.writer import Bounds, JournalWriter
from tests.journal.records import exchange, ids, observation, opened


def open_writer(directory: Path, segment_bytes: int = 1 << 20) -> JournalWriter:
    return JournalWriter.open(
        directory, directory.name, loop=None, clock=lambda: 5.0, bounds=Bounds(segment_bytes=segment_bytes)
    )


def test_a_reader_follows_a_growing_journal_from_any_position(tmp_path: Path) -> None:
    directory = tmp_path / "w"
    reader = JournalReader(directory)
    assert reader.read() is None
    writer = open_writer(directory, 2000)
    assert reader.read() is None
    seen: list[str] = []
    places: list[Position] = []
    draws = random.Random(3)
    number = 0
    while number < 200:
        for _ in range(draws.randint(1, 9)):
            writer.append(exchange(number))
            number += 1
        writer.flush()
        while (batch := reader.read(draws.choice([1, 300, 5000]))) is not None:
            assert batch.frames
            assert batch.end - batch.start == len(batch.body)
            for position, record in batch.records():
                places.append(position)
                seen += ids([record])
        assert reader.lag() == 0
    assert seen == ids([exchange(n) for n in range(number)])
    assert places == sorted(places)
    for index in (0, 50, 150):
        rest = [record for _, record in iterate(directory, places[index])]
        assert ids(rest) == seen[index:]
    reader.seek(places[100])
    assert reader.lag() > 0
    writer.close()
    reader.close()


def test_a_torn_live_tail_is_waited_for(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    writer.append(exchange(1))
    writer.append(exchange(2))
    writer.close()
    path = tmp_path / segment_name(1)
    whole = path.read_bytes()
    reader = JournalReader(tmp_path)
    os.truncate(path, HEADER_BYTES + 20)
    assert reader.read() is None
    for kept in range(HEADER_BYTES + 21, len(whole)):
        path.write_bytes(whole[:kept])
        batch = reader.read()
        assert batch is None or not batch.damage
    path.write_bytes(whole)
    last = reader.read()
    assert last is not None
    assert ids([r for _, r in last.records()]) == ids([exchange(2)])
    reader.close()


def test_damage_in_the_middle_is_reported_even_at_the_live_end(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    for number in range(3):
        writer.append(exchange(number))
    writer.close()
    path = tmp_path / segment_name(1)
    data = bytearray(path.read_bytes())
    size = (len(data) - HEADER_BYTES) // 3
    data[HEADER_BYTES + size + 40] ^= 0xFF
    path.write_bytes(data)
    for limit in (10, 1 << 20):
        reader = JournalReader(tmp_path)
        found: list[str] = []
        damage: list[Damage] = []
        while (batch := reader.read(limit)) is not None:
            found += ids([r for _, r in batch.records()])
            damage += batch.damage
        assert found == ids([exchange(0), exchange(2)])
        assert [(d.start, d.end) for d in damage] == [(HEADER_BYTES + size, HEADER_BYTES + 2 * size)]
        reader.close()


def test_a_torn_end_of_an_earlier_segment_is_stepped_over(tmp_path: Path) -> None:
    open_writer(tmp_path).close()
    writer = open_writer(tmp_path)
    writer.append(exchange(5))
    writer.close()
    with (tmp_path / segment_name(1)).open("ab") as file:
        file.write(b"\x50\0\0\0half a frame")
    reader = JournalReader(tmp_path)
    first, second = reader.read(), reader.read()
    assert first is not None
    assert second is not None
    assert (len(first.frames), len(first.damage)) == (0, 1)
    assert ids([r for _, r in second.records()]) == ids([exchange(5)])
    assert reader.read() is None
    reader.close()


def test_a_removed_segment_is_a_gap_and_a_position_past_the_end_moves_on(tmp_path: Path) -> None:
    for number in range(4):
        writer = open_writer(tmp_path)
        writer.append(exchange(number))
        writer.close()
    reader = JournalReader(tmp_path, Position(1, 10_000))
    (tmp_path / segment_name(2)).unlink()
    batch = reader.read()
    assert batch is not None
    assert batch.segment == 3
    assert reader.gaps == 1
    reader.close()
    assert verify(tmp_path.parent, tmp_path.name)[0].missing == (2,)


def test_what_the_commands_tell(tmp_path: Path) -> None:
    for name in ("gateway-0", "gateway-1"):
        writer = open_writer(tmp_path / name)
        for number in range(5):
            writer.append(exchange(number if name == "gateway-0" else 10 + number))
        writer.append(observation(1))
        writer.append(opened(99))
        writer.append(exchange(3, outcome="error", id=f"req_{name}"))
        writer.close()
    assert workers(tmp_path) == ["gateway-0", "gateway-1"]
    assert workers(tmp_path / "none") == []
    assert len(list(cat(tmp_path))) == 16
    assert len(list(cat(tmp_path, "gateway-1"))) == 8
    last = tail(tmp_path, count=3)
    assert [type(r).__name__ for _, _, r in last] == ["Opened", "Observation", "Observation"]
    assert len(tail(tmp_path, count=500)) == 16
    (first, _) = stats(tmp_path)
    assert first.records == {"exchange": 6, "observation": 1, "opened": 1}
    assert first.outcomes == {"ok": 5, "error": 1}
    assert (first.prompt_tokens, first.completion_tokens, first.cost_nanousd) == (60, 120, 180)
    report = verify(tmp_path)[0]
    assert report.sound
    assert report.open == (exchange(99).id,)
    assert [w for w, _, _ in find(tmp_path, exchange(12).id)] == ["gateway-1"]


def test_contents_are_verified_too(tmp_path: Path) -> None:
    keys = FileKeystore.open(tmp_path / "keys", Wrapping(bytes(32)))
    records = []
    for number, subject in enumerate(("user/a", "user/a", "user/b", "")):
        key = keys.key_of("acme", subject)
        said = Said(messages=(("user", f"text {number}"),))
        records.append(
            exchange(number, content=Content(key.id, key.seal("acme", exchange(number).id, list(said.messages), [])))
        )
    writer = JournalWriter.open(tmp_path / "journal" / "w", "w", loop=None, clock=lambda: 1.0)
    for record in (*records, exchange(9)):
        writer.append(record)
    writer.flush()
    (report,) = verify(tmp_path / "journal")
    assert (report.sound, report.contents) == (True, {"sealed": 4})
    keys.forget("acme", "user/b", 5.0)
    (report,) = verify(tmp_path / "journal", keys=keys)
    assert (report.sound, report.contents) == (True, {"readable": 3, "destroyed": 1})
    assert all(f"text {number}" not in repr(report) for number in range(4))
    swapped = msgspec.structs.replace(records[0], id="req_swapped")
    cut = exchange(7, content=Content(records[0].content.key, b"short"))  # type: ignore[union-attr]
    lost = exchange(8, content=Content("cd" * 16, records[0].content.sealed))  # type: ignore[union-attr]
    for record in (swapped, cut, lost):
        writer.append(record)
    writer.close()
    (report,) = verify(tmp_path / "journal")
    assert (report.sound, report.contents) == (False, {"sealed": 6, "damaged": 1})
    (report,) = verify(tmp_path / "journal", keys=keys)
    assert report.contents == {"readable": 3, "destroyed": 1, "damaged": 2, "lost": 1}
    assert [damage.reason.split(" is ")[0] for damage in report.damage] == [
        "The content of req_swapped",
        f"The content of {cut.id}",
    ]
