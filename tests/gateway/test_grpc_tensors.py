"""Tensors and questions: what was sent is read as it was meant, and nonsense is refused by name."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.gateway.grpc import inference_pb2 as pb
from penstock.gateway.grpc.ask import read_question
from penstock.gateway.grpc.status import Failure
from penstock.gateway.grpc.tensors import packed_texts, read_parameter, read_tensors, text_contents, write_parameter

Tensor = pb.ModelInferRequest.InferInputTensor
TEXTS = st.lists(st.text(max_size=20), max_size=5)


@given(TEXTS)
def test_texts_are_read_as_they_were_written_raw_and_typed(texts: list[str]) -> None:
    tensor = Tensor(name="a", datatype="BYTES", shape=[len(texts)])
    assert read_tensors(pb.ModelInferRequest(inputs=[tensor], raw_input_contents=[packed_texts(texts)])) == {"a": texts}
    tensor.contents.CopyFrom(text_contents(texts))
    assert read_tensors(pb.ModelInferRequest(inputs=[tensor])) == {"a": texts}


@given(st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=20))
def test_parameters_are_read_as_they_were_written(value: bool | float | str) -> None:
    found = read_parameter("a", write_parameter(value))
    assert (type(found), found) == (type(value), value)


@given(
    st.sampled_from(["BYTES", "INT32", "BOOL", "FP16", "FP64", "NONE", ""]),
    st.lists(st.integers(-2, 3), max_size=3),
    st.lists(st.binary(max_size=12), max_size=2),
    st.text(max_size=8),
)
def test_nonsense_is_refused_by_name(datatype: str, shape: list[int], raw: list[bytes], name: str) -> None:
    request = pb.ModelInferRequest(
        model_name="m", inputs=[Tensor(name=name, datatype=datatype, shape=shape)], raw_input_contents=raw
    )
    try:
        question = read_question(request, streams=True)
    except BadRequest as error:
        assert error.param is not None
    else:
        assert name in {"messages", "text_input"}
        assert msgspec.json.decode(question.body)["model"] == "m"


def infer(**fields: Any) -> pb.ModelInferRequest:
    tensors = [
        Tensor(name=name, datatype="BYTES", shape=[1], contents=text_contents([text])) for name, text in fields.items()
    ]
    return pb.ModelInferRequest(model_name="m", inputs=tensors)


def test_messages_are_one_list_or_one_each() -> None:
    one, two = {"role": "system", "content": "a"}, {"role": "user", "content": "b"}
    together = infer(messages=json.dumps([one, two]))
    apart = pb.ModelInferRequest(
        model_name="m",
        inputs=[
            Tensor(
                name="messages", datatype="BYTES", shape=[2], contents=text_contents([json.dumps(one), json.dumps(two)])
            )
        ],
    )
    for request in (together, apart):
        assert msgspec.json.decode(read_question(request, streams=False).body)["messages"] == [one, two]


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (infer(text_input="a", messages="[]"), "text_input"),
        (infer(), "text_input"),
        (infer(messages="{"), "messages"),
        (infer(text_input="a", model="other"), "model"),
        (infer(text_input="a", sampling_parameters="[]"), "sampling_parameters"),
        (infer(text_input="a", sampling_parameters='{"messages":[]}'), "messages"),
        (pb.ModelInferRequest(inputs=infer(text_input="a").inputs), "model_name"),
        (pb.ModelInferRequest(model_name="m", model_version="1", inputs=infer(text_input="a").inputs), "model_version"),
    ],
)
def test_what_is_wrong_is_named(request_: pb.ModelInferRequest, param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read_question(request_, streams=False)
    assert refused.value.param == param


def test_a_stream_asks_for_its_usage() -> None:
    body = msgspec.json.decode(read_question(infer(text_input="a"), streams=True).body)
    assert body == {"model": "m", "prompt": "a", "stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 418, 429, 431, 500, 502, 503, 504])
def test_every_failure_has_a_status(status: int) -> None:
    failure = Failure(http_status=status, message="m", code="c", param="p\n", retry_after=2.5)
    assert failure.status.value[0] > 0
    names = [name for name, _ in failure.metadata()]
    assert names == ["x-penstock-error-code", "grpc-status-details-bin"]
