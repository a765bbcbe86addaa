"""Where content is kept, both answers of a pair are: what judges them afterwards finds them under the record that tells whose each is."""

from pathlib import Path

from penstock.core.exchange import Exchange
from penstock.core.snapshot import Policy
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.masterkey import Wrapping
from penstock.journal.reading import open_content
from tests.gateway import test_interleave, test_shadow
from tests.gateway.house import running
from tests.gateway.mock_upstream import MockUpstream
from tests.gateway.raw_client import ask, chat

KEPT = (Policy(name="default", capture="full"),)


def answers(folder: Path, record: Exchange) -> dict[int, str]:
    """By choice, out of the journal."""
    keys = FileKeystore.open(folder / "keys", Wrapping(bytes(32)))
    opened = open_content(keys, record)
    assert opened.state == "readable", opened.why
    assert opened.told["messages"][-1]["text"] == "hello there"
    return {reply["index"]: reply["text"] for reply in opened.told["replies"]}


async def test_both_choices_of_an_interleaved_answer(tmp_path: Path) -> None:
    other = await test_interleave.says("the other one")
    async with running(tmp_path, policies=KEPT) as house:
        test_interleave.begin(house, f"http://127.0.0.1:{other.port}")
        assert (await ask(house.port, chat("hello there", user="ann"))).status == 200
        record = await test_interleave.record_of(house)
        await other.drain(0.1)
    assert record.pair is not None
    texts = answers(tmp_path, record)
    assert {arm: texts[place] for place, arm in enumerate(record.pair.shown)} == {
        "control": "hello there",
        "new": "the other one",
    }


async def test_the_copy_of_a_shadow_and_what_the_user_got(tmp_path: Path) -> None:
    candidate = MockUpstream()
    async with running(tmp_path, policies=KEPT) as house:
        test_shadow.begin(house, await candidate.start())
        for stream in (False, True):
            assert (await ask(house.port, chat("hello there", user="ann", stream=stream))).status == 200
            copies = await test_shadow.copies(house)
        by_id = {one.id: one for one in house.exchanges()}
        await candidate.stop()
    assert len(copies) == 2
    for copy in copies:
        assert copy.pair is not None
        assert answers(tmp_path, copy) == answers(tmp_path, by_id[copy.pair.of]) == {0: "hello there"}
