"""Whether an answer that comes sooner tells somebody what others have asked: looked at by timing, as a curious tenant would."""

import time
from pathlib import Path

import httpx
import pytest

from penstock.core.settings import EngineSettings
from tests.engine.conftest import DEADLINE_S, Running, running_engine

pytestmark = pytest.mark.engine

STARTER = Path(__file__).parents[2] / "examples/support_bot/models/support-bot-v1.0.0/openvino-int8"
TOKENS = 900
ROUNDS = 8
TRIES = 4  # a machine that does other things at times makes some rounds slow; what a cache gives, it gives in all


def seconds(engine: Running, prompt: list[int]) -> float:
    """How long one token takes after `prompt`."""
    body = {"model": "m", "prompt": prompt, "max_tokens": 1, "temperature": 0}
    begun = time.perf_counter()
    reply = httpx.post(f"{engine.url}/v1/completions", json=body, timeout=DEADLINE_S)
    took = time.perf_counter() - begun
    assert reply.status_code == 200, reply.text
    return took


def speed_up(engine: Running, attempt: int) -> float:
    """How many times sooner the second of two equal prompts is answered, at best of some rounds, with prompts of this attempt alone."""
    seconds(engine, [7] * TOKENS)  # the first of all is slow for other reasons
    first, second = [], []
    for number in range(ROUNDS):
        prompt = [100 + attempt * ROUNDS + number, *range(200, 200 + TOKENS - 1)]  # of which no other begins like it
        first.append(seconds(engine, prompt))
        second.append(seconds(engine, prompt))
    return min(first) / min(second)


def test_no_engine_remembers_prompts_unless_it_is_told_to() -> None:
    assert EngineSettings().prefix_cache is False


def test_the_same_prompt_is_no_quicker_for_the_next_tenant() -> None:
    with running_engine(STARTER, "m", kv_cache_mb=64) as engine:
        apart = next((seen for attempt in range(TRIES) if (seen := speed_up(engine, attempt)) < 1.25), 2.0)
        assert engine.metric("vllm:kv_cache_usage_perc") == 0, "nothing stays of a prompt that was answered"
    with running_engine(STARTER, "m", kv_cache_mb=64, prefix_cache=True) as engine:
        shared = next((seen for attempt in range(TRIES) if (seen := speed_up(engine, attempt)) > 1.4), 0.0)
        assert engine.metric("vllm:kv_cache_usage_perc") > 0
    print(f"the second time {apart:.2f} times as quick without, {shared:.2f} times with a shared prefix cache")
    assert apart < 1.25
    assert shared > 1.4
