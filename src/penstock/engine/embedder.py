"""A model that turns texts into vectors, and the one thread in which it does so: what waits meanwhile is computed together."""

import asyncio
import concurrent.futures
import json
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from penstock.core.errors import Damaged, NotFound, PenstockError, RateLimited, Unavailable, UpstreamFailed
from penstock.engine.lifted import MODEL
from penstock.engine.signal_stack import own_signal_stack
from penstock.engine.stats import Stats

BATCH_TOKENS = 4096  # of one computation, padding counted
_Asked = tuple[list[list[int]], "asyncio.Future[Embedded]", int]  # texts, their vectors to come, when they arrived
_POOLINGS = ("mean", "cls", "lasttoken")


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    """One request's vectors, as `Model.vectors` gives them, and when their computation began and ended, monotonic."""

    vectors: list[bytes]
    began_ns: int
    ended_ns: int


class Pooling(msgspec.Struct, frozen=True, kw_only=True):
    """How a text's vector is made of its tokens' vectors.

    Attributes:
        mode: mean, cls (the first token's) or lasttoken.
        normalize: the vector is given the length 1.
    """

    mode: str = "mean"
    normalize: bool = True


def is_embedder(directory: Path) -> bool:
    """Whether the model in `directory` makes vectors of texts: a folder in the layout of sentence-transformers."""
    return (directory / "modules.json").is_file()


def read_pooling(directory: Path) -> Pooling:
    """What `modules.json` and the pooling's `config.json` ask for.

    Raises:
        Damaged: if they are none, or ask for what is not known here.
    """
    try:
        modules = json.loads((directory / "modules.json").read_bytes())
        kinds = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in modules}
        config = json.loads((directory / kinds["Pooling"] / "config.json").read_bytes()) if "Pooling" in kinds else {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Damaged(f"{directory}/modules.json does not tell how vectors are made: {error}.") from None
    if unknown := kinds.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise Damaged(
            f"{directory}/modules.json asks for {', '.join(sorted(unknown))}, which the engine does not know."
        )
    names = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "lasttoken": "pooling_mode_lasttoken"}
    chosen = [mode for mode in _POOLINGS if config.get(names[mode])]
    if len(chosen) > 1 or (config and not chosen):
        raise Damaged(f"{directory}: the pooling is none of {', '.join(_POOLINGS)} alone.")
    return Pooling(mode=chosen[0] if chosen else "mean", normalize="Normalize" in kinds)


class Model:
    """The compiled model.

    Attributes:
        width: numbers in a vector.

    Raises:
        NotFound: if its files are not there.
        Damaged: if they cannot be loaded.
    """

    def __init__(self, directory: Path, threads: int) -> None:
        import openvino

        if not (directory / MODEL).is_file():
            raise NotFound(f"{directory} has no {MODEL}.", code="model_not_found")
        self._pooling = read_pooling(directory)
        # Float32, so that a text's vector does not depend on what is computed beside it.
        properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            properties["INFERENCE_NUM_THREADS"] = threads
        try:
            with own_signal_stack():
                compiled = openvino.Core().compile_model(str(directory / MODEL), "CPU", properties)
        except RuntimeError as error:
            raise Damaged(f"{directory} cannot be loaded as an OpenVINO model: {str(error).splitlines()[0]}") from error
        self._request = compiled.create_infer_request()
        self._inputs = [name for port in compiled.inputs for name in port.get_names()]
        output = compiled.output(0).get_partial_shape()
        if output.rank.get_length() != 3 or not output[2].is_static:
            raise Damaged(f"{directory} gives no vector for each token: its output is {output}.")
        self.width: int = output[2].get_length()

    def vectors(self, texts: list[list[int]]) -> list[bytes]:
        """The vector of each text's tokens, float32 in the machine's order, `width` numbers each."""
        import numpy as np

        length = max(map(len, texts))
        ids = np.zeros((len(texts), length), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        self._request.infer({name: given[name] for name in self._inputs if name in given})
        tokens = self._request.get_output_tensor(0).data
        if self._pooling.mode == "cls":
            pooled = tokens[:, 0]
        elif self._pooling.mode == "lasttoken":
            pooled = tokens[np.arange(len(texts)), mask.sum(1) - 1]
        else:
            weight = mask[:, :, None].astype(np.float32)
            pooled = (tokens * weight).sum(1) / weight.sum(1)
        if self._pooling.normalize:
            pooled = pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
        return [row.tobytes() for row in np.ascontiguousarray(pooled, dtype=np.float32)]


class Embedder:
    """Takes texts to embed, at most `max_waiting` requests at a time beyond those that are computed.

    Attributes:
        stats: what was counted.
        ready: requests are taken now.
        width: numbers in a vector; 0 until it is ready.
    """

    def __init__(self, directory: Path, *, threads: int, max_waiting: int) -> None:
        self.stats = Stats()
        self.ready = False
        self.width = 0
        self.running = 0
        self._directory = directory
        self._threads = threads
        self._most = max_waiting
        self._waiting: deque[_Asked] = deque()
        self._some = asyncio.Event()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self._task: asyncio.Task[None] | None = None
        self._model: Model | None = None

    @property
    def waiting(self) -> int:
        """Requests that wait for the thread."""
        return len(self._waiting)

    async def start(self) -> None:
        """Loads the model.

        Raises:
            NotFound: if its files are not there.
            Damaged: if they cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        self._model = await loop.run_in_executor(self._thread, Model, self._directory, self._threads)
        self.width = self._model.width
        self._task = loop.create_task(self._work(self._model))
        self.ready = True

    async def until(self, stop: asyncio.Event) -> None:
        """Waits for `stop`; raises what broke the embedder, should that come first."""
        if self._task is not None:
            waiting = asyncio.ensure_future(stop.wait())
            done, _ = await asyncio.wait([waiting, self._task], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if self._task in done:
                self.ready = False
                self._task.result()

    async def stop(self) -> None:
        """Ends; what waits fails."""
        self.ready = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for _, future, _ in self._waiting:
            if not future.done():
                future.set_exception(Unavailable("The engine is stopping; try another.", code="not_ready"))
        self._waiting.clear()
        self._thread.shutdown(wait=False)

    async def embed(self, texts: list[list[int]], arrived_ns: int) -> Embedded:
        """The vectors of one request's texts.

        Raises:
            Unavailable: if the model is not loaded.
            RateLimited: if too many wait already.
            UpstreamFailed: if the computation fails.
        """
        if not self.ready:
            raise Unavailable("The model is being loaded; try again in a second.", code="not_ready", retry_after=1.0)
        if len(self._waiting) >= self._most:
            raise RateLimited(
                f"{len(self._waiting)} of at most {self._most} requests wait already; try again later.",
                code="queue_full",
                retry_after=min(60.0, max(1.0, len(self._waiting) * self.stats.mean_seconds)),
            )
        future: asyncio.Future[Embedded] = asyncio.get_running_loop().create_future()
        self._waiting.append((texts, future, arrived_ns))
        self._some.set()
        return await future

    async def _work(self, model: Model) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            taken = self._take()
            if not taken:
                self._some.clear()
                continue
            self.running = len(taken)
            began_ns = time.monotonic_ns()
            try:
                rows = [text for texts, _, _ in taken for text in texts]
                vectors = await loop.run_in_executor(self._thread, _computed, model, rows)
            except RuntimeError as error:
                self._fail(
                    taken, UpstreamFailed(f"The model failed: {str(error).splitlines()[0]}", code="engine_failed")
                )
            else:
                self._deliver(taken, vectors, began_ns)
            self.running = 0

    def _take(self) -> list[_Asked]:
        """The requests at the head of the queue that go into one computation; at least one, if any waits."""
        taken: list[_Asked] = []
        tokens = 0
        while self._waiting:
            texts, future, _ = self._waiting[0]
            size = sum(map(len, texts))
            if taken and tokens + size > BATCH_TOKENS:
                break
            tokens += size
            entry = self._waiting.popleft()
            if future.cancelled():
                self.stats.finished["abort"] += len(texts)
            else:
                taken.append(entry)
        return taken

    def _deliver(self, taken: list[_Asked], vectors: list[bytes], began_ns: int) -> None:
        now = time.monotonic_ns()
        at = 0
        for texts, future, arrived_ns in taken:
            mine, at = vectors[at : at + len(texts)], at + len(texts)
            stats = self.stats
            stats.prompt_tokens += sum(map(len, texts))
            stats.finished["abort" if future.cancelled() else "stop"] += len(texts)
            stats.whole.observe((now - arrived_ns) / 1e9)
            if not future.done():
                future.set_result(Embedded(vectors=mine, began_ns=began_ns, ended_ns=now))

    def _fail(self, taken: list[_Asked], error: PenstockError) -> None:
        for texts, future, _ in taken:
            self.stats.finished["abort"] += len(texts)
            if not future.done():
                future.set_exception(error)


def _computed(model: Model, rows: list[list[int]]) -> list[bytes]:
    """The vectors of `rows`, computed in groups of like length."""
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
    found: list[bytes] = [b""] * len(rows)
    group: list[int] = []
    for at in order:
        if group and len(rows[at]) * (len(group) + 1) > BATCH_TOKENS:
            _compute(model, rows, group, found)
            group = []
        group.append(at)
    if group:
        _compute(model, rows, group, found)
    return found


def _compute(model: Model, rows: list[list[int]], group: list[int], found: list[bytes]) -> None:
    for at, vector in zip(group, model.vectors([rows[at] for at in group]), strict=True):
        found[at] = vector
