"""Content that a policy wants kept, from the socket to the journal: masked, sealed, and opened again."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.content import whole
from penstock.core.exchange import Exchange
from penstock.core.snapshot import CachePolicy, Policy, Rule
from penstock.gateway.capture import _cut
from penstock.gateway.index import Rules
from penstock.journal.content import Said, unseal
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.keystore import Tombstone
from penstock.journal.masterkey import Wrapping
from penstock.journal.sealing import SubjectKey
from penstock.journal.subjects import hash_subject
from penstock.journal.vault import Vault
from tests.gateway.house import KEY, OTHER, House, running, until
from tests.gateway.raw_client import ask, chat, post

ADDRESS = "jane.doe@example.com"
CARD = "4111 1111 1111 1111"


class Kept:
    """A house whose content can be read."""

    def __init__(self, house: House, folder: Path) -> None:
        self.house = house
        self.port = house.port
        self.keys = FileKeystore.open(folder / "keys", Wrapping(bytes(32)))
        self.folder = folder

    def last(self) -> Exchange:
        return self.house.exchanges()[-1]

    def said(self, exchange: Exchange | None = None) -> Said:
        one = exchange or self.last()
        assert one.content is not None
        key = self.keys.find(one.content.key)
        assert isinstance(key, SubjectKey)
        return unseal(key, one.tenant, one.id, one.content)

    def written(self) -> bytes:
        return b"".join(path.read_bytes() for path in (self.folder / "journal").rglob("*.pjl"))


@asynccontextmanager
async def keeping(folder: Path, capture: dict[str, Any] | None = None, **more: Any) -> AsyncIterator[Kept]:
    policy = Policy(name="default", **{"capture": "masked", **(capture or {})})
    vault = Vault(FileKeystore.open(folder / "keys", Wrapping(bytes(32))))
    async with running(folder, policies=(policy,), vault=vault, **more) as house:
        yield Kept(house, folder)


@pytest.mark.parametrize("stream", [False, True])
async def test_masked_content_of_a_chat(tmp_path: Path, stream: bool) -> None:
    async with keeping(tmp_path) as kept:
        text = f"Write to {ADDRESS} about {CARD}, order 48213"
        got = await ask(kept.port, chat(text, stream=stream, user="jane"))
        assert got.status == 200
        assert ADDRESS.encode() in got.body or stream  # what the client gets is not touched
        assert kept.house.mock.asked[0]["messages"][0]["content"] == text
        masked = "Write to [email] about [payment_card], order 48213"
        assert kept.said() == Said(messages=(("user", masked),), replies=((0, "content", masked),))
        content = kept.last().content
        assert content is not None
        assert content.masked
        assert not content.cut
        for secret in (ADDRESS, CARD, "jane", "48213"):
            assert secret.encode() not in kept.written()
        assert not [one for one in kept.house.opened() if one.exchange.content is not None]


async def test_full_content_is_as_it_was(tmp_path: Path) -> None:
    async with keeping(tmp_path, {"capture": "full"}) as kept:
        await ask(kept.port, chat(f"mail {ADDRESS}"))
        assert kept.said() == Said(
            messages=(("user", f"mail {ADDRESS}"),), replies=((0, "content", f"mail {ADDRESS}"),)
        )
        assert ADDRESS.encode() not in kept.written()
        content = kept.last().content
        assert content is not None
        assert not content.masked


@pytest.mark.parametrize("capture", [{"capture": "none"}, {"capture": "masked", "capture_share": 0.0}])
async def test_nothing_is_kept_where_the_policy_keeps_none(tmp_path: Path, capture: dict[str, Any]) -> None:
    async with keeping(tmp_path, capture) as kept:
        for stream in (False, True):
            await ask(kept.port, chat("secret words", stream=stream))
        assert [one.content for one in kept.house.exchanges()] == [None, None]
        assert not list((tmp_path / "keys").glob("*.keys"))
        assert b"secret words" not in kept.written()


async def test_a_share_is_drawn(tmp_path: Path) -> None:
    async with keeping(tmp_path, {"capture_share": 0.25}) as kept:
        kept.house.worker.gateway.draw = random.Random(5).random
        for _ in range(100):
            await ask(kept.port, chat("hello"))
        count = sum(one.content is not None for one in kept.house.exchanges())
        assert 12 <= count <= 40  # 25, within three and a half standard deviations


async def test_routes_and_tenants_have_policies_of_their_own(tmp_path: Path) -> None:
    async with keeping(tmp_path, {"capture": "none"}, route={"policy": "kept"}) as kept:
        kept.house.take(policies=(Policy(name="default"), Policy(name="kept", capture="full")))
        await ask(kept.port, chat("by route"))
        assert kept.said().messages == (("user", "by route"),)
        snapshot = kept.house.worker.gateway.index.snapshot
        routes = tuple(msgspec.structs.replace(route, policy=None) for route in snapshot.routes)
        tenants = tuple(
            msgspec.structs.replace(tenant, policy="kept" if tenant.name == "other" else None)
            for tenant in snapshot.tenants
        )
        kept.house.take(routes=routes, tenants=tenants)
        await ask(kept.port, chat("not kept", key=KEY))
        await ask(kept.port, chat("by tenant", key=OTHER))
        assert [one.content is not None for one in kept.house.exchanges()] == [True, False, True]


async def test_each_subject_has_a_key_of_its_own(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        for fields in ({"user": "a"}, {"user": "a"}, {"user": "b"}, {"metadata": {"session_id": "a"}}, {}, {}):
            await ask(kept.port, chat("hello", **fields))
        await ask(kept.port, chat("hello", user="a", key=OTHER))
        names = [one.content.key for one in kept.house.exchanges() if one.content is not None]
        assert names[0] == names[1]
        assert names[4] == names[5]
        assert len(set(names)) == 5


async def test_a_forgotten_subject_cannot_be_read_and_begins_anew(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        await ask(kept.port, chat("before", user="a"))
        await ask(kept.port, chat("someone else", user="b"))
        backup = kept.written()
        subject = "user/" + hash_subject(bytes(32), "a")
        assert kept.keys.forget("acme", subject, 99.0) == 1
        await ask(kept.port, chat("after", user="a"))
        before, other, after = kept.house.exchanges()
        assert before.content is not None
        assert after.content is not None
        assert kept.keys.find(before.content.key) == Tombstone(before.content.key, 99.0)
        assert backup == kept.written()[: len(backup)]  # nothing was rewritten
        assert kept.said(other).messages == (("user", "someone else"),)
        assert kept.said(after).messages == (("user", "after"),)
        new = kept.keys.find(after.content.key)
        assert isinstance(new, SubjectKey)
        with pytest.raises(Exception, match="not what was written"):
            unseal(new, "acme", before.id, before.content)


async def test_completions_embeddings_and_responses(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        body = json.dumps({"model": "mock", "prompt": ["one", f"two {ADDRESS}"]}).encode()
        assert (await ask(kept.port, post("/v1/completions", body))).status in {200, 500, 502}
        body = json.dumps({"model": "mock", "prompt": f"two {ADDRESS}"}).encode()
        assert (await ask(kept.port, post("/v1/completions", body))).status == 200
        assert kept.said().messages == (("prompt", "two [email]"),)
        body = json.dumps({"model": "mock", "input": ["one", f"two {ADDRESS}"]}).encode()
        assert (await ask(kept.port, post("/v1/embeddings", body))).status == 200
        assert kept.said() == Said(messages=(("input", "one"), ("input", "two [email]")))
        for stream in (False, True):
            body = json.dumps({"model": "mock", "input": f"three {ADDRESS}", "stream": stream}).encode()
            assert (await ask(kept.port, post("/v1/responses", body))).status == 200
            assert kept.said() == Said(
                messages=(("user", "three [email]"),), replies=((0, "content", "three [email]"),)
            )


async def test_parts_that_are_no_text_are_named(tmp_path: Path) -> None:
    content = [{"type": "image_url", "image_url": {"url": "data:abc"}}, {"type": "text", "text": "what is it"}]
    body = {
        "model": "mock",
        "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": content}],
    }
    async with keeping(tmp_path) as kept:
        assert (await ask(kept.port, post("/v1/chat/completions", json.dumps(body).encode()))).status == 200
        assert kept.said().messages == (("system", "be kind"), ("user", "[image_url]\nwhat is it"))


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_from_the_cache_are_kept_too(tmp_path: Path, stream: bool) -> None:
    cache = CachePolicy(mode="exact", ttl_s=300)
    async with keeping(tmp_path, route={"cache": cache}) as kept:
        for label in (b"miss", b"hit"):
            got = await ask(kept.port, chat("same words", stream=stream, temperature=0))
            assert got.headers[b"x-penstock-cache"] == label
            assert kept.said() == Said(messages=(("user", "same words"),), replies=((0, "content", "same words"),))
        got = await ask(
            kept.port, chat("other words", stream=stream, temperature=1)
        )  # not for the cache, but for the journal
        assert kept.said().replies == ((0, "content", "other words"),)
        assert len(kept.house.worker.gateway.cache) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_shared_answers_are_kept_for_each(tmp_path: Path, stream: bool) -> None:
    async with keeping(tmp_path, route={"coalesce": True}) as kept:
        request = chat("!wait together", stream=stream, temperature=0)
        asked = [asyncio.create_task(ask(kept.port, request)) for _ in range(3)]
        flights = kept.house.worker.gateway.flights
        await until(lambda: sum(flight.members for flight in flights.values()) == 3)
        kept.house.mock.gate.set()
        assert [(await one).status for one in asked] == [200] * 3
        for exchange in kept.house.exchanges():
            assert kept.said(exchange).replies == ((0, "content", "!wait together"),)
        assert len(kept.house.worker.gateway.cache) == 0


async def test_a_stream_that_breaks_off_keeps_what_came(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        await ask(kept.port, chat("!truncate one two three", stream=True))
        await until(lambda: len(kept.house.exchanges()) == 1)
        assert kept.last().outcome == "crashed"
        said = kept.said()
        assert said.messages == (("user", "!truncate one two three"),)
        assert len(said.replies) == 1
        assert "!truncate one two three".startswith(said.replies[0][2])


async def test_a_request_that_fails_keeps_its_question(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        await ask(kept.port, chat("!status500"))
        assert kept.said() == Said(messages=(("user", "!status500"),))


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_of_tools_are_kept_and_masked(tmp_path: Path, stream: bool) -> None:
    async with keeping(tmp_path) as kept:
        arguments = json.dumps({"to": ADDRESS, "about": "a lamp"})
        called = {"id": "1", "type": "function", "function": {"name": "send", "arguments": arguments}}
        body = {
            "model": "mock",
            "stream": stream,
            "tools": [{"type": "function", "function": {"name": "send"}}],
            "messages": [
                {"role": "assistant", "content": None, "tool_calls": [called, called]},
                {"role": "tool", "tool_call_id": "1", "content": f"sent to {ADDRESS}"},
                {"role": "assistant", "content": None, "function_call": called["function"]},
                {"role": "assistant", "content": "as is", "tool_calls": "no list"},
                {"role": "user", "content": f"!tool send {arguments}"},
            ],
        }
        got = await ask(kept.port, post("/v1/chat/completions", json.dumps(body).encode()))
        assert got.status == 200
        call = 'send({"to": "[email]", "about": "a lamp"})'
        assert kept.said() == Said(
            messages=(
                ("tool_call", call),
                ("tool_call", call),
                ("tool", "sent to [email]"),
                ("tool_call", call),
                ("assistant", "as is"),
                ("user", f"!tool send {arguments.replace(ADDRESS, '[email]')}"),
            ),
            replies=((0, "content", "I look. "), (0, "tool_call", call)),
        )
        assert ADDRESS.encode() not in kept.written()


async def test_requests_that_end_together_are_masked_each(tmp_path: Path) -> None:
    """One search for all of a turn: whoever has something to mask has it masked, and the others stay as they are."""
    async with keeping(tmp_path) as kept:
        texts = [f"number {at}" if at % 3 else f"write to {ADDRESS}, {at}" for at in range(12)]
        requests = [chat(f"!wait {text}") for text in texts]
        asked = [asyncio.create_task(ask(kept.port, one)) for one in requests]
        await until(lambda: kept.house.mock.running == len(texts))
        kept.house.mock.gate.set()
        assert {(await one).status for one in asked} == {200}
        found = sorted(kept.said(one).messages[0][1] for one in kept.house.exchanges())
        assert found == sorted(f"!wait {text.replace(ADDRESS, '[email]')}" for text in texts)


async def test_what_rules_hide_is_hidden_here_too(tmp_path: Path) -> None:
    rules = (
        Rule(name="project", detect="words", words=("bluebird",), do="mask"),
        Rule(name="no", detect="words", words=("forbidden",), do="block"),
    )
    async with keeping(tmp_path, {"rules": rules}) as kept:
        await ask(kept.port, chat("about bluebird"))
        assert kept.said() == Said(
            messages=(("user", "about [project]"),), replies=((0, "content", "about [project]"),)
        )
        got = await ask(kept.port, chat("a forbidden word"))
        assert got.status == 400
        assert kept.said() == Said(messages=(("user", "a "),))


async def test_long_content_is_cut_and_says_so(tmp_path: Path) -> None:
    async with keeping(tmp_path, {"capture_chars": 1000}) as kept:
        long = "word " * 1000
        body = {
            "model": "mock",
            "messages": [{"role": "user", "content": t} for t in ("old " * 300, "!status500 " + long)],
        }
        await ask(kept.port, post("/v1/chat/completions", json.dumps(body).encode()))
        content = kept.last().content
        assert content is not None
        assert content.cut
        assert [len(text) for _, text in kept.said().messages] == [0, 1000]
        await ask(kept.port, chat(long))
        said = kept.said()
        assert [len(said.messages[0][1]), len(said.replies[0][2])] == [500, 500]


@pytest.mark.parametrize("room", range(256, 700, 5))
def test_nothing_shows_at_a_cut(room: int) -> None:
    """What a cut goes through is not left as a piece that no detector knows."""
    rules = Rules(Policy(name="p", capture="masked", capture_chars=room))
    text = f"{'x' * 240} {ADDRESS} {CARD} {'y' * 100} {ADDRESS} {CARD} DE89 3704 0044 0532 0130 00 " + "z " * 2000
    for texts, asked in (([text], 1), ([text], 0), (["a", text, "b"], 2), ([text, text], 1)):
        kept = _cut(texts, asked, rules)
        assert sum(map(len, kept)) <= room
        for one in kept:
            for piece in ("jane", "@", "4111", "1111", "DE89"):
                assert piece not in one


async def test_content_that_cannot_be_sealed_costs_the_content_alone(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        gateway = kept.house.worker.gateway
        for path in (tmp_path / "keys").iterdir():
            path.unlink()
        (tmp_path / "keys").rmdir()
        assert (await ask(kept.port, chat("hello", user="new"))).status == 200
        assert kept.last().content is None
        assert gateway.vault is not None
        assert (gateway.vault.kept, gateway.vault.lost) == (0, 1)
        got = await ask(kept.port, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"penstock_content_lost_total" in got.body
        policy = Policy(name="default", capture="masked", audit="strict")
        kept.house.take(policies=(policy,))
        got = await ask(kept.port, chat("hello", user="new"))
        assert got.status == 503
        assert b"content" in got.body


async def test_strict_audit_has_keys_on_the_disk_first(tmp_path: Path) -> None:
    async with keeping(tmp_path, {"audit": "strict"}) as kept:
        for stream in (False, True):
            assert (await ask(kept.port, chat("hello", user=f"u{stream}", stream=stream))).status == 200
            vault = kept.house.worker.gateway.vault
            assert isinstance(vault, Vault)
            assert not vault._keys.unsynced
        assert len(kept.house.exchanges()) == 2


async def test_half_a_surrogate_pair_is_refused_before(tmp_path: Path) -> None:
    async with keeping(tmp_path) as kept:
        body = b'{"model":"mock","messages":[{"role":"user","content":"a \\ud83d b"}]}'
        got = await ask(kept.port, post("/v1/chat/completions", body))
        assert (got.status, kept.last().content) == (400, None)


async def test_the_bench_measures_what_it_says(tmp_path: Path) -> None:
    measured = await whole(tmp_path, 64, 1)
    assert set(measured) == {"none", "masked", "full", "none stream", "masked stream", "full stream"}
    kept = {
        name.partition("-")[0]
        for name in ("masked-False", "full-True")
        if list((tmp_path / name / "keys").glob("*.keys"))
    }
    assert kept == {"masked", "full"}
    assert not list((tmp_path / "none-False" / "keys").glob("*.keys"))
