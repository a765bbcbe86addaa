"""What an arm may set of a request, checked when it is registered: what an engine would refuse request by request is refused once, here.

The ranges are those of OpenAI's API and of the engines that speak it. Names that are not listed pass: engines know more than any list.
"""

import math
from collections.abc import Mapping
from typing import Any

from penstock.core.errors import BadRequest

ALWAYS_KEPT = ("model", "messages", "prompt", "stream", "user", "n")
KEPT = (*ALWAYS_KEPT, "input", "stream_options", "metadata", "cache_salt")

_NUMBERS: dict[str, tuple[float, float]] = {  # name: lowest, highest
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "repetition_penalty": (1e-6, 2.0),
    "length_penalty": (-10.0, 10.0),
}
_WHOLE: dict[str, tuple[int, int]] = {
    "max_tokens": (1, 10_000_000),
    "max_completion_tokens": (1, 10_000_000),
    "min_tokens": (0, 10_000_000),
    "top_k": (-1, 10_000_000),
    "top_logprobs": (0, 20),
    "seed": (-(2**63), 2**63 - 1),
    "best_of": (1, 128),
}
_TRUTHS = ("logprobs", "ignore_eos", "skip_special_tokens", "parallel_tool_calls")
_OBJECTS = ("logit_bias", "response_format")
_WORDS: dict[str, tuple[str, ...]] = {
    "reasoning_effort": ("none", "minimal", "low", "medium", "high", "xhigh"),
    "verbosity": ("low", "medium", "high"),
}
_MOST_STOPS = 16


def check_params(params: Mapping[str, Any], path: str) -> None:
    """Refuse values that no engine would take, and fields that an arm cannot vary.

    Raises:
        BadRequest: `param` is `path` and the name of what is wrong.
    """
    for name, value in params.items():
        said = _fault(name, value)
        if said:
            raise BadRequest(said, param=f"{path}.{name}")


def _fault(name: str, value: object) -> str:
    if name in KEPT:
        return f"An arm cannot vary {name!r} of a request."
    if value is None:
        return f"{name} is null: leave it out to keep what the request says."
    if name in _NUMBERS:
        return _number(name, value, *_NUMBERS[name])
    if name in _WHOLE:
        if not isinstance(value, int) or isinstance(value, bool):
            return f"{name} is {value!r}: it must be a whole number."
        return _number(name, value, *_WHOLE[name])
    if name in _TRUTHS and not isinstance(value, bool | int):
        return f"{name} is {value!r}: it must be true or false."
    if name in _OBJECTS and not isinstance(value, dict):
        return f"{name} is {value!r}: it must be an object."
    if name in _WORDS and value not in _WORDS[name]:
        return f"{name} is {value!r}: use {', '.join(_WORDS[name])}."
    return _stop(value) if name == "stop" else ""


def _number(name: str, value: object, low: float, high: float) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return f"{name} is {value!r}: it must be a number."
    return "" if low <= value <= high else f"{name} is {value:g}: use {low:g} to {high:g}."


def _stop(value: object) -> str:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(one, str) and one for one in stops):
        return "stop must be a text or a list of texts, none of them empty."
    return "" if len(stops) <= _MOST_STOPS else f"stop has {len(stops)} texts: use at most {_MOST_STOPS}."
