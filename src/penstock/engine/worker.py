"""The worker process: one pipeline, one loop of three moves: take commands, step, tell what came of it.

`step()` holds the interpreter's lock, so the HTTP front is another process, which starts this one as
`python -m penstock.engine.worker FD`, where FD is its end of a socket pair. When the front goes, so does the worker.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from penstock.core.errors import Damaged, PenstockError
from penstock.engine.lifted import lifted
from penstock.engine.messages import (
    Add,
    Cancel,
    Failed,
    FrameReader,
    Output,
    Outputs,
    Ready,
    Sampling,
    Start,
    ToFront,
    ToWorker,
    frame,
)
from penstock.engine.signal_stack import own_signal_stack

_log = logging.getLogger("penstock.engine.worker")


class Channel:
    """The worker's end of the socket pair."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = FrameReader()
        self._decoder: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)

    def take(self, *, wait: bool) -> list[ToWorker]:
        """The commands that have come; if `wait`, at least one.

        Raises:
            EOFError: when the front has gone.
        """
        bodies: list[bytes] = []
        while True:
            try:
                data = self._sock.recv(262144, 0 if wait and not bodies else socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except ConnectionError as error:
                raise EOFError("the front has gone") from error
            if not data:
                raise EOFError("the front has gone")
            bodies += self._reader.feed(data)
        return [self._decoder.decode(body) for body in bodies]

    def tell(self, message: ToFront) -> None:
        """Sends `message`, waiting for the front if it is behind.

        Raises:
            EOFError: when the front has gone.
        """
        try:
            self._sock.sendall(frame(message))
        except ConnectionError as error:
            raise EOFError("the front has gone") from error


class Running:
    """The sequences that the pipeline works on."""

    def __init__(self, pipeline: Any, start: Start) -> None:
        import openvino_genai

        self._pipeline = pipeline
        self._genai = openvino_genai
        self._start = start
        self._handles: dict[int, tuple[Any, bool]] = {}
        self._fresh: dict[int, int] = {}  # those that have brought forth nothing yet, and when they were handed over

    def __len__(self) -> int:
        return len(self._handles)

    def add(self, command: Add) -> Output | None:
        """Hands the sequence to the pipeline; a refusal is told as its output."""
        import numpy as np
        import openvino as ov

        prompt = ov.Tensor(np.array([command.prompt], np.int64))
        try:
            handle = self._pipeline.add_request(command.id, prompt, self._config(command.sampling))
        except RuntimeError as error:
            _log.warning("the pipeline refused a request: %s", error)
            return Output(command.id, [], None, "failed")
        self._handles[command.id] = (handle, command.sampling.logprobs)
        self._fresh[command.id] = time.monotonic_ns()
        return None

    def cancel(self, identity: int) -> None:
        """Forgets the sequence; the pipeline drops it in its next step."""
        held = self._handles.pop(identity, None)
        self._fresh.pop(identity, None)
        if held is not None:
            held[0].cancel()

    def first_words(self) -> bool:
        """Whether a sequence has its first token, and nobody has been told."""
        return any(self._handles[identity][0].can_read() for identity in self._fresh)

    def collect(self) -> list[Output]:
        """What every sequence has brought forth since the last time; those that have ended are forgotten."""
        outputs = []
        status = self._genai.GenerationStatus
        running, finished = status.RUNNING, status.FINISHED
        length = self._genai.GenerationFinishReason.LENGTH
        ended = []
        for identity, (handle, logprobs) in self._handles.items():
            state = handle.get_status()
            if not handle.can_read():
                if state != running:
                    ended.append(identity)
                    outputs.append(Output(identity, [], None, "stop" if state == finished else "failed"))
                continue
            tokens: list[int] = []
            scores: list[float] = []
            reason = None
            while handle.can_read():
                for output in handle.read().values():
                    tokens += output.generated_ids
                    if logprobs:
                        scores += output.generated_log_probs
                    reason = output.finish_reason
            finish = ""
            if state != running:
                ended.append(identity)
                finish = "failed" if state != finished else "length" if reason == length else "stop"
            began = self._fresh.pop(identity, 0)
            outputs.append(Output(identity, tokens, scores if logprobs else None, finish, began))
        for identity in ended:
            del self._handles[identity]
            self._fresh.pop(identity, None)
        return outputs

    def _config(self, sampling: Sampling) -> Any:
        config = self._genai.GenerationConfig()
        config.max_new_tokens = sampling.max_tokens
        config.apply_chat_template = False
        config.eos_token_id = self._start.stop_ids[0] if self._start.stop_ids else -1
        config.stop_token_ids = set(self._start.stop_ids)
        config.ignore_eos = sampling.ignore_eos
        config.logprobs = 1 if sampling.logprobs else 0
        if sampling.presence_penalty:
            config.presence_penalty = sampling.presence_penalty
        if sampling.frequency_penalty:
            config.frequency_penalty = sampling.frequency_penalty
        if sampling.repetition_penalty != 1.0:
            config.repetition_penalty = sampling.repetition_penalty
        if sampling.temperature > 0:
            config.do_sample = True
            config.temperature = sampling.temperature
            config.top_p = sampling.top_p
            config.rng_seed = sampling.seed
            if sampling.top_k:
                config.top_k = sampling.top_k
            if sampling.min_p:
                config.min_p = sampling.min_p
        return config


def properties(threads: int) -> dict[str, Any]:
    """How the plugin is to compute: so that a request's tokens do not depend on what runs beside it.

    With bfloat16 matrices and an 8-bit KV cache, both defaults, they do: the first rounds differently for another batch size, the
    second for another cut of the prompt. Float32 over int8 weights with a half-precision cache is as quick at making tokens, and
    takes up to twice as long to read a prompt on processors with bfloat16 units.
    """
    chosen: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f16"}
    return {**chosen, "INFERENCE_NUM_THREADS": threads} if threads else chosen


def load(start: Start) -> tuple[Any, Ready]:
    """The pipeline for `start`, compiled, and what the front is to know of it.

    Raises:
        PenstockError: if the folder holds no model that the pipeline takes.
    """
    import openvino_genai

    directory = Path(start.directory)
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_seqs = start.max_running
    scheduler.enable_prefix_caching = start.prefix_cache
    scheduler.num_kv_blocks = start.kv_blocks
    try:
        with own_signal_stack(), lifted(directory) as folder:
            pipeline = openvino_genai.ContinuousBatchingPipeline(
                str(folder or directory), scheduler, "CPU", properties(start.threads), {"INFERENCE_NUM_THREADS": 1}
            )
    except RuntimeError as error:
        raise Damaged(f"{directory} cannot be loaded as an OpenVINO model: {first_line(error)}") from error
    return pipeline, Ready(penalties=folder is not None)


def first_line(error: BaseException) -> str:
    """What the pipeline's exception says, without its stack and file names."""
    lines = [
        line for line in str(error).splitlines() if line.strip() and not line.startswith(("Exception from", "Check "))
    ]
    return lines[0].strip() if lines else type(error).__name__


def serve(channel: Channel) -> None:
    """Runs until the front goes.

    Raises:
        EOFError: when the front has gone.
        PenstockError: if the model cannot be loaded.
        RuntimeError: if the pipeline broke; it is of no use then.
    """
    commands = channel.take(wait=True)
    start = commands.pop(0)
    if not isinstance(start, Start):
        raise Damaged(f"the first command was {type(start).__name__}, not Start")
    pipeline, ready = load(start)
    running = Running(pipeline, start)
    channel.tell(ready)
    told = 0.0
    while True:
        outputs = obey(commands or channel.take(wait=not len(running)), running)
        commands = []
        if pipeline.has_non_finished_requests():
            pipeline.step()
        now = time.monotonic()
        if now - told >= start.interval_s or running.first_words() or not pipeline.has_non_finished_requests():
            outputs += running.collect()
            told = now
        if outputs:
            channel.tell(Outputs(outputs=outputs, cache_usage=pipeline.get_metrics().cache_usage / 100))


def obey(commands: list[ToWorker], running: Running) -> list[Output]:
    """Carries `commands` out; what there is to tell of them."""
    outputs = []
    for command in commands:
        if isinstance(command, Add):
            refused = running.add(command)
            if refused is not None:
                outputs.append(refused)
        elif isinstance(command, Cancel):
            for identity in command.ids:
                running.cancel(identity)
    return outputs


def main(argv: list[str]) -> int:
    """Serves the front behind the socket whose descriptor is `argv[0]`; the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the front decides when to stop
    channel = Channel(socket.socket(fileno=int(argv[0])))
    try:
        serve(channel)
    except EOFError:
        os._exit(0)  # at once: nobody is left to whom the pipeline could explain what it was doing
    except (PenstockError, RuntimeError, OSError) as error:
        _log.exception("the pipeline's worker ends")
        reason = error.message if isinstance(error, PenstockError) else first_line(error)
        with contextlib.suppress(EOFError):
            channel.tell(Failed(reason=reason))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
