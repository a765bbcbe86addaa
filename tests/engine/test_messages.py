import itertools

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.messages import FrameReader, Output, Outputs, ToFront, frame


@given(
    outputs=st.lists(st.builds(Output, st.integers(0, 99), st.lists(st.integers(0, 2**31))), max_size=5),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_frames_come_out_as_they_went_in_however_they_are_cut(outputs: list[Output], cuts: list[int]) -> None:
    messages = [Outputs(outputs=[output]) for output in outputs]
    data = b"".join(map(frame, messages))
    reader = FrameReader()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    bodies = [body for a, b in itertools.pairwise(edges) for body in reader.feed(data[a:b])]
    assert [msgspec.msgpack.decode(body, type=ToFront) for body in bodies] == messages
