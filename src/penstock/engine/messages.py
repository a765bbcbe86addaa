"""What the front process and the pipeline's worker say to each other, and how it is framed on their socket pair.

A frame is four bytes of length, little-endian, and that many bytes of msgpack: one tagged message.
"""

import struct

import msgspec

LENGTH = struct.Struct("<I")


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """Front to worker, once: load this model."""

    directory: str
    max_running: int
    kv_blocks: int
    threads: int  # 0: as many as cores
    prefix_cache: bool
    stop_ids: tuple[int, ...]
    interval_s: float  # tokens are told at most this often, except first ones


class Sampling(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """How tokens are drawn; checked by the front, so that the pipeline takes every value."""

    max_tokens: int
    temperature: float = 1.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    logprobs: bool = False
    ignore_eos: bool = False


class Add(msgspec.Struct, frozen=True, kw_only=True, tag="add"):
    """Front to worker: begin this sequence."""

    id: int
    prompt: list[int]
    sampling: Sampling


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    """Front to worker: nobody wants the rest of these."""

    ids: list[int]


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """Worker to front, once: requests are taken."""

    penalties: bool  # whether presence and frequency penalties can be computed rightly


class Output(msgspec.Struct, frozen=True, array_like=True):
    """What one sequence has brought forth since it was last reported."""

    id: int
    tokens: list[int]
    logprobs: list[float] | None = None
    finish: str = ""  # "stop", "length", "failed"; "": it goes on
    began_ns: int = (
        0  # with what comes first of it: when the pipeline was given it, by the clock that both processes share
    )


class Outputs(msgspec.Struct, frozen=True, kw_only=True, tag="outputs"):
    """Worker to front: one step of all sequences. `cache_usage` is between 0 and 1."""

    outputs: list[Output]
    cache_usage: float = 0.0


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """Worker to front, last: it cannot go on, and why."""

    reason: str


ToWorker = Start | Add | Cancel
ToFront = Ready | Outputs | Failed

_encoder = msgspec.msgpack.Encoder()


def frame(message: ToWorker | ToFront) -> bytes:
    """`message`, framed."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a byte stream into the bodies of whole frames."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that `data` completes, in order."""
        rest = self._rest
        rest += data
        bodies = []
        at = 0
        while len(rest) - at >= LENGTH.size:
            (length,) = LENGTH.unpack_from(rest, at)
            end = at + LENGTH.size + length
            if len(rest) < end:
                break
            bodies.append(bytes(rest[at + LENGTH.size : end]))
            at = end
        if at:
            del rest[:at]
        return bodies
