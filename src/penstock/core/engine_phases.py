"""How long each phase of an answer took in the engine that gave it, and where that lies among the gateway's own times."""

from typing import Annotated

import msgspec

Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class EnginePhases(msgspec.Struct, frozen=True, array_like=True):
    """Lengths in nanoseconds of the engine's clock, one phase after the other, from the request's first byte to the answer's last."""

    preprocess: Nanoseconds = 0  # read, the template, tokens, the version's own steps on requests
    queue: Nanoseconds = 0  # until the pipeline took it
    prefill: Nanoseconds = 0  # until its first token: the prompt is read
    decode: Nanoseconds = 0  # until its last token
    postprocess: Nanoseconds = 0  # the version's own steps on answers; writing the last of it

    def lengths(self) -> tuple[tuple[str, int], ...]:
        """Name and length of each, in order."""
        return tuple((name, getattr(self, name)) for name in self.__struct_fields__)

    def placed(self, dispatched: int, first: int, last: int, *, resumed: bool = False) -> tuple["Placed", ...]:
        """The phases that took any time, between `dispatched` and `last`, on a clock that is not the engine's.

        The engine began no earlier than `dispatched`, and no later than lets its first token come by `first` and its last by `last`, these being
        when the gateway saw them. The middle of that is taken. `resumed`: the engine went on with what another one had begun, so `first` says nothing of
        it, and its end is the answer's. What is longer than the interval is cut.
        """
        latest = last - sum(length for _, length in self.lengths())
        if resumed:
            begin = max(dispatched, latest)
        else:
            latest = min(latest, first - self.preprocess - self.queue - self.prefill)
            begin = dispatched + max(0, latest - dispatched) // 2
        found = []
        for name, length in self.lengths():
            end = min(last, begin + length)
            if end > begin:
                found.append(Placed(name=name, begin=begin, end=end))
                begin = end
        return tuple(found)


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """One phase of an engine, in nanoseconds since the first byte of the request was read by the gateway."""

    name: str
    begin: int
    end: int
