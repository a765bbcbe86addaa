"""Three ways to ask the model: an OpenAI-compatible endpoint, the weights by PyTorch, an OpenVINO folder."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

Messages = list[dict[str, str]]
Answerer = Callable[[list[Messages]], list[str]]
_LIMIT = 96  # tokens of an answer
_BATCH = 64


class EndpointError(RuntimeError):
    """The endpoint did not answer as an OpenAI-compatible one does."""


def endpoint(url: str, key: str, model: str, concurrency: int, timeout_s: float = 60.0) -> Answerer:
    """Asks POST {url}/chat/completions; `url` ends in /v1."""
    address = url.rstrip("/") + "/chat/completions"

    def ask(messages: Messages) -> str:
        body = json.dumps({"model": model, "messages": messages, "temperature": 0, "max_tokens": _LIMIT}).encode()
        request = urllib.request.Request(
            address, body, {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as reply:
                return str(json.load(reply)["choices"][0]["message"]["content"])
        except urllib.error.HTTPError as error:
            raise EndpointError(f"{address} answered {error.code}: {error.read()[:300]!r}") from error
        except (urllib.error.URLError, TimeoutError) as error:
            raise EndpointError(f"{address} cannot be reached: {error}") from error

    def ask_all(asked: list[Messages]) -> list[str]:
        with ThreadPoolExecutor(concurrency) as pool:
            return list(_counted(pool.map(ask, asked), len(asked)))

    return ask_all


def local(folder: Path) -> Answerer:
    """The weights of a Hugging Face folder under PyTorch, in fp32."""
    from examples.support_bot.folders import read_model
    from examples.support_bot.model import generate

    model, coder = read_model(folder)

    def ask_all(asked: list[Messages]) -> list[str]:
        prompts = [coder.prompt(messages) for messages in asked]
        order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
        answers = [""] * len(prompts)
        for start in range(0, len(order), _BATCH):
            part = order[start : start + _BATCH]
            for at, ids in zip(part, generate(model, [prompts[at] for at in part], coder.end, _LIMIT), strict=True):
                answers[at] = coder.decode(ids)
        return answers

    return ask_all


def openvino(folder: Path) -> Answerer:
    """An OpenVINO folder under OpenVINO GenAI's ContinuousBatchingPipeline."""
    import openvino_genai as ov

    scheduler = ov.SchedulerConfig()
    scheduler.cache_size = 1  # GB
    pipeline = ov.ContinuousBatchingPipeline(str(folder), scheduler, "CPU")
    tokenizer = pipeline.get_tokenizer()
    greedy = ov.GenerationConfig(
        max_new_tokens=_LIMIT, do_sample=False, eos_token_id=pipeline.get_config().eos_token_id
    )

    def ask_all(asked: list[Messages]) -> list[str]:
        prompts = [tokenizer.apply_chat_template(messages, add_generation_prompt=True) for messages in asked]
        ids = [tokenizer.encode(prompt, add_special_tokens=False).input_ids for prompt in prompts]
        results = pipeline.generate(ids, [greedy] * len(ids))
        return [tokenizer.decode(result.m_generation_ids[0]) for result in results]

    return ask_all


def _counted(answers: Iterator[str], total: int) -> Iterator[str]:
    for done, answer in enumerate(answers, start=1):
        if sys.stderr.isatty() or done == total:
            print(f"\r{done} of {total} answered", end="" if done < total else "\n", file=sys.stderr, flush=True)
        yield answer
