"""`penstock canary` and `penstock blocks` as people read them."""

from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner

from penstock.cli.main import cli
from penstock.core.errors import BadRequest, PenstockError
from tests.console.house import ADMIN, House, furnish

Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with House(tmp_path_factory.mktemp("canary"), "http://127.0.0.1:9").running() as house:
        furnish(house)

        def told(*words: str) -> str:
            asked = [*words, "--url", house.url, "--key", ADMIN]
            done = CliRunner().invoke(cli, asked, standalone_mode=False)
            if done.exception is not None:
                raise done.exception
            return done.output

        yield told


def test_what_is_no_plan_is_a_sentence(run: Run) -> None:
    start = ("canary", "start", "support-bot:v1.0.0", "--to", "production")
    for words, said in (
        (("--steps", "a,b"), "give percents such as"),
        (("--steps", "50,10"), "rising shares"),
        (("--guardrail", "error_rate=x"), "METRIC=MARGIN"),
        (("--metric", "nothing"), "is no metric"),
    ):
        with pytest.raises(BadRequest, match=said):
            run(*start, *words)
    with pytest.raises(PenstockError, match="There is no canary of nothing"):
        run("canary", "status", "nothing")


def test_a_canary_is_begun_read_turned_and_taken_back(run: Run) -> None:
    assert "There was no canary" in run("canary", "list")
    begun = run(
        "canary", "start", "support-bot:v1.0.0", "--to", "production", "--steps", "10, 50%,100", "--reason", "why"
    )
    assert "support-bot:v1.0.0 is tried out in production against v1.1.0: 10 %, 50 %, 100 % of the traffic." in begun
    shown = run("canary", "status", "support-bot")
    assert "v1.0.0 against v1.1.0 in production" in shown
    assert "step 1 of 3" in shown
    assert "Step 1 of 3 waits for" in shown
    assert "0.00 of 6.21" in shown
    assert "is paused" in run("canary", "pause", "support-bot", "--reason", "lunch")
    assert "is running" in run("canary", "resume", "support-bot")
    assert "support-bot:v1.0.0" in run("canary", "list", "--state", "running")
    assert "All traffic is on support-bot:v1.1.0." in run(
        "canary", "abort", "support-bot", "--block", "--reason", "bad"
    )
    ended = run("canary", "status", "support-bot")
    assert "aborted (blocked)" in ended
    assert "Aborted by admin: bad." in ended
    assert "why Aborted by admin: bad." in run("history", "support-bot")
    assert "Aborted by admin: bad." in run("blocks", "list")
    with pytest.raises(PenstockError, match="is blocked in production"):
        run("promote", "support-bot:v1.0.0", "--to", "production", "--canary")
    cleared = run("blocks", "clear", "support-bot:v1.0.0", "--in", "production", "--reason", "no more")
    assert "may be deployed in production again" in cleared
    assert "No version is blocked." in run("blocks", "list")
    assert "is tried out" in run("promote", "support-bot:v1.0.0", "--to", "production", "--canary")
    with pytest.raises(PenstockError, match="No replica"):
        run("canary", "promote", "support-bot")
