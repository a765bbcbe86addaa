"""What the console shows of versions: lineage, cards, differences, data sets, what stands behind an answer."""

import re

import httpx
import msgspec

from penstock.console.lineage import draw
from penstock.console.shapes_versions import Edge, Graph, Node
from tests.console.conftest import sign_in
from tests.console.house import House, exchange


async def page(visitor: httpx.AsyncClient, path: str) -> str:
    await sign_in(visitor)
    reply = await visitor.get(path)
    assert reply.status_code == 200, reply.text
    return reply.text


async def test_a_version_shows_what_it_came_of_and_what_its_card_lacks(visitor: httpx.AsyncClient) -> None:
    text = await page(visitor, "/models/support-bot/v1.1.0")
    assert re.search(r'<a href="/models/support-bot/v1\.0\.0"><g class="version">', text)
    assert "fine tuned from" in text
    assert '<a href="/datasets/talks">' in text, "what v1.0.0 was trained on stands behind it, too"
    assert "penstock models card support-bot:v1.1.0 --edit card.md" in text


async def test_two_versions_are_compared_in_words(visitor: httpx.AsyncClient) -> None:
    text = await page(visitor, "/models/support-bot/diff?a=v1.0.0&b=v1.1.0")
    assert "A major version" in text or "A minor version" in text
    assert '<td class="mono">weights</td>' in text
    assert "README.md" not in text


async def test_a_data_set_shows_its_custody_and_its_gaps(visitor: httpx.AsyncClient) -> None:
    text = await page(visitor, "/datasets/talks")
    assert "talks tells no licence." in text
    assert "<script>alert" not in text
    assert ">support-bot:v1.0.0</a>" in text
    assert ">talks</a>" in await page(visitor, "/datasets")


async def test_a_request_shows_what_stands_behind_it(newcomer: httpx.AsyncClient, new_house: House) -> None:
    new_house.call("POST", "/datasets", {"name": "talks", "spec": {"digest": "sha256:" + "1" * 64}})
    new_house.push("v1.0.0", metadata={"training": {"data": [{"dataset": "talks"}]}})
    new_house.call("POST", "/environments", {"name": "production", "spec": {}})
    new_house.promote("v1.0.0", reason="it was asked for")
    digest = new_house.call("GET", "/resolve", ref="support-bot:v1.0.0")["digest"]
    one = exchange(1, new_house.clock() + 1, version="support-bot:v1.0.0", digest=digest)
    new_house.ingest([msgspec.structs.replace(one, pool="support-bot-v1.0.0-int8")])
    text = await page(newcomer, f"/requests/{one.id}")
    assert "What stands behind it" in text
    assert "it was asked for" in text
    assert "talks names no custodian." in text


async def test_readiness_shows_evidence_and_what_would_supply_it(visitor: httpx.AsyncClient) -> None:
    text = await page(visitor, "/models/support-bot/v1.1.0/readiness")
    assert "of 7</h1>" in text
    assert "Serving models can be rolled back" in text
    assert "penstock rollback support-bot --in production" in text


def test_a_graph_is_drawn_from_left_to_right() -> None:
    nodes = tuple(
        Node(id=name, kind=kind, depth=depth)
        for name, kind, depth in (
            ("m:v1", "version", -1),
            ("m:v2", "version", 0),
            ("t", "dataset", -1),
            ("m:v3", "version", 1),
        )
    )
    edges = tuple(
        Edge(source=source, relation="fine_tuned_from", kind="version", target=target)
        for source, target in (("m:v2", "m:v1"), ("m:v2", "t"), ("m:v3", "m:v2"))
    )
    drawn = draw(Graph(nodes=nodes, edges=edges))
    assert drawn is not None
    places = {box.whole: box for box in drawn.boxes}
    assert places["m:v1"].x < places["m:v2"].x < places["m:v3"].x
    assert len({(box.x, box.y) for box in drawn.boxes}) == 4
    assert all(line.x1 < line.x2 for line in drawn.lines)
    assert all(box.x >= 0 and box.x + 200 <= drawn.width and box.y + 44 <= drawn.height for box in drawn.boxes)
    assert (places["m:v1"].href, places["t"].href) == ("/models/m/v1", "/datasets/t")
    assert draw(Graph(nodes=nodes[1:2])) is None
