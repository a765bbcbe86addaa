"""Tests on both kinds of event loop: transports differ in how they close, wait and accept, and a gateway runs on uvloop."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

LoopMaker = Callable[[], asyncio.AbstractEventLoop]


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """`test`, an async one, as two: on asyncio's own loop, and on uvloop."""

    @functools.wraps(test)
    def run(make_loop: LoopMaker, **arguments: Any) -> None:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(test(**arguments))

    signature = inspect.signature(test)
    one_more = inspect.Parameter("make_loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), one_more])  # type: ignore[attr-defined]
    both = pytest.mark.parametrize(
        "make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
    )
    found: Callable[..., None] = both(run)
    return found
