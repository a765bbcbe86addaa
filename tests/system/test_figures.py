"""The starter versions' quality through the running gateway, as their cards tell it."""

import urllib.request
from collections.abc import Iterator

import pytest

from bench.cost_levers import applied, stack
from examples.support_bot import answerers, figures
from examples.support_bot.evaluate import judged, questions
from examples.support_bot.shop import load_shop
from tests.system.starter import Up

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(600)]
RIGHT = "in-scope questions answered right"


@pytest.fixture(scope="module")
def both(up: Up) -> Iterator[Up]:
    """Routes `small` (v1.0.0) and `large` (v1.1.0), gone at the end."""
    documents = stack()
    applied(up, documents)
    yield up
    for one in reversed(documents):
        request = urllib.request.Request(
            f"{up.control}/api/v1/{one['kind'].lower()}s/{one['name']}",
            headers={"authorization": f"Bearer {up.secret('admin.key')}"},
            method="DELETE",
        )
        urllib.request.urlopen(request, timeout=30).close()


def asked(up: Up, model: str, every: int) -> dict[str, figures.Share]:
    """The figures of `model` on every `every`th question."""
    some, shop = questions()[::every], load_shop()
    answer = answerers.endpoint(f"{up.gateway}/v1", up.secret("demo.key"), model, 8)
    scores = judged(some, answer([q.turns for q in some]), shop)
    return figures.summed((q.intent, s) for q, s in zip(some, scores, strict=True))


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.soak)])
def test_the_shipped_versions_are_as_good_as_their_cards_say(both: Up, every: int) -> None:
    """All questions meet the targets; a part of them at least does not contradict them."""
    better, worse = asked(both, "large", every), asked(both, "small", every)
    floors = {
        RIGHT: 0.80,
        "order numbers in answers that were asked about": 0.97,
        "off-topic questions refused": 0.88,
    }
    for name, least in floors.items():
        assert (better[name].value if every == 1 else better[name].interval()[1]) >= least, (name, better[name])
    refused = better["in-scope questions wrongly refused"]
    assert (refused.value if every == 1 else refused.interval()[0]) <= 0.05, refused
    gap = better[RIGHT].value - worse[RIGHT].value
    assert 0.10 <= gap <= 0.30 if every == 1 else 0.0 < gap < 0.4, gap
