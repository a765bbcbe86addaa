"""The Open Inference Protocol: a client of the published proto, a real process, and the same steps as over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from penstock.core.snapshot import CachePolicy, Limits, Policy, Rule
from tests.gateway.grpc_client import (
    connected,
    credentials,
    generated,
    parameters,
    process,
    question,
    serving,
    texts,
    trailing,
)
from tests.gateway.house import OTHER, running, until
from tests.gateway.test_arms import experiment
from tests.net.certificates import make_certificate


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """One process for all tests: its port, and the folder in which it looks for workers."""
    data = tmp_path_factory.mktemp("grpc")
    (data / "run").mkdir()
    with process(data) as port:
        yield port, data / "run"


@pytest.fixture
async def stub(server: tuple[int, Path], tmp_path: Path) -> AsyncIterator[Any]:
    """A stub to it; the workers of a test's own folder are the ones that it finds."""
    port, run = server
    (tmp_path / "run").symlink_to(run)
    async with connected(port) as made:
        yield made


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_question_and_what_the_server_tells_of_itself(tmp_path: Path, stub: Any) -> None:
    pb, _ = generated()
    async with running(tmp_path) as house:
        assert (await stub.ServerLive(pb.ServerLiveRequest())).live
        assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
        assert (await stub.ServerMetadata(pb.ServerMetadataRequest())).name == "penstock"
        assert (await stub.ModelReady(pb.ModelReadyRequest(name="mock"), metadata=credentials())).ready
        told = await stub.ModelMetadata(pb.ModelMetadataRequest(name="mock"), metadata=credentials())
        assert [tensor.name for tensor in told.inputs] == ["text_input", "messages"]

        fields: dict[str, Any] = {
            "temperature": 0.5,
            "max_tokens": 9,
            "user": "u1",
            "sampling_parameters": '{"future":{"a":[1]}}',
        }
        asked = question("good day", name="q1", outputs=("finish_reason", "text_output", "response"), **fields)
        call = stub.ModelInfer(asked, metadata=credentials(**{"x-penstock-session": "s1"}))
        got = await call
        assert (got.id, got.model_name, got.model_version) == ("q1", "mock", "mock:v1.0.0")
        assert (texts(got), texts(got, "finish_reason")) == (["good day"], ["stop"])
        assert json.loads(texts(got, "response")[0])["choices"][0]["message"]["content"] == "good day"
        assert [output.name for output in got.outputs] == ["finish_reason", "text_output", "response"]
        assert got.parameters["prompt_tokens"].int64_param == 11
        assert got.parameters["completion_tokens"].int64_param == 4
        assert house.mock.asked == [
            {
                "model": "mock",
                "messages": [{"role": "user", "content": "good day"}],
                "temperature": 0.5,
                "max_tokens": 9,
                "user": "u1",
                "future": {"a": [1]},
            }
        ]
        await house.settled()
        (record,) = house.exchanges()
        assert (record.tenant, record.key, record.status, record.outcome) == ("acme", "key_1", 200, "ok")
        assert (record.usage.prompt, record.usage.completion) == (11, 4)
        assert record.user
        assert record.session
        tail = dict(await call.trailing_metadata())
        assert tail["x-penstock-request-id"] == record.id == got.parameters["request_id"].string_param
        assert tail["x-penstock-digest"] == "sha256:" + "ab" * 32
        await stub.ModelReady(pb.ModelReadyRequest(name="mock"), metadata=credentials())
        assert len(house.exchanges()) == 1


async def test_raw_tensors_as_tritons_clients_send_them(tmp_path: Path, stub: Any) -> None:
    pb, _ = generated()
    tensor = pb.ModelInferRequest.InferInputTensor
    asked = pb.ModelInferRequest(
        model_name="mock",
        inputs=[
            tensor(name="text_input", datatype="BYTES", shape=[1, 1]),
            tensor(name="max_tokens", datatype="INT32", shape=[1]),
            tensor(name="temperature", datatype="FP32", shape=[1]),
            tensor(name="stream", datatype="BOOL", shape=[1]),
        ],
        raw_input_contents=[b"\x08\0\0\0say this", b"\x07\0\0\0", b"\0\0\0\x3f", b"\0"],
    )
    async with running(tmp_path) as house:
        got = await stub.ModelInfer(asked, metadata=credentials())
        assert texts(got) == ["say this"]
        assert got.raw_output_contents
        assert house.mock.asked == [{"model": "mock", "prompt": "say this", "max_tokens": 7, "temperature": 0.5}]
        assert house.exchanges()[0].operation == "completions"


async def test_errors_have_their_codes(tmp_path: Path, stub: Any) -> None:
    pb, _ = generated()
    limits = Limits(requests_per_minute=9)
    rules = (Rule(name="names", words=("mallory",), on=("input",), do="block"),)
    policies = (Policy(name="default", rules=rules),)
    async with running(tmp_path, key={"limits": limits}, policies=policies) as house:
        error = await refused(stub.ModelInfer(question("hi")))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert trailing(error)["x-penstock-error-code"] == "missing_api_key"
        for asked, code, name in (
            (question("hi", model="nobody"), grpc.StatusCode.NOT_FOUND, "model_not_found"),
            (question("hi", temperature=9.0), grpc.StatusCode.INVALID_ARGUMENT, "invalid_value"),
            (question("mallory"), grpc.StatusCode.INVALID_ARGUMENT, "content_filter"),
            (question("!status500"), grpc.StatusCode.UNAVAILABLE, "upstream_status"),
            (question("!status400"), grpc.StatusCode.INVALID_ARGUMENT, "context_length_exceeded"),
            (question("!reset"), grpc.StatusCode.UNAVAILABLE, "upstream_closed"),
            (question("hi", stream=True), grpc.StatusCode.INVALID_ARGUMENT, "invalid_value"),
            (question("hi", outputs=("nothing",)), grpc.StatusCode.INVALID_ARGUMENT, "invalid_value"),
            (pb.ModelInferRequest(model_name="mock"), grpc.StatusCode.INVALID_ARGUMENT, "invalid_value"),
        ):
            error = await refused(stub.ModelInfer(asked, metadata=credentials()))
            assert (error.code(), trailing(error)["x-penstock-error-code"]) == (code, name), error.details()
        missing = pb.ModelReadyRequest(name="nobody")
        error = await refused(stub.ModelReady(missing, metadata=credentials(OTHER)))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        for _ in range(4):
            await refused(stub.ModelInfer(question("!status400"), metadata=credentials()))
        error = await refused(stub.ModelInfer(question("hi"), metadata=credentials()))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        status = rpc_status.from_call(error)
        assert status is not None
        assert (status.code, status.message) == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], error.details())
        info = error_details_pb2.RetryInfo()
        assert status.details[0].Unpack(info)
        assert 1 <= info.retry_delay.seconds <= 63
        assert int(trailing(error)["retry-after"]) == info.retry_delay.seconds
        await stub.ModelInfer(question("hi"), metadata=credentials(OTHER))
        await house.settled()


async def test_users_stay_in_their_arms_and_each_call_leaves_one_record(tmp_path: Path, stub: Any) -> None:
    async with running(tmp_path, route={"experiment": experiment()}) as house:
        arms: dict[str, set[str]] = {}
        for number in range(24):
            call = stub.ModelInfer(question("hello", user=f"user {number % 12}"), metadata=credentials())
            await call
            arms.setdefault(f"user {number % 12}", set()).add(dict(await call.trailing_metadata())["x-penstock-arm"])
        assert all(len(found) == 1 for found in arms.values())
        assert set.union(*arms.values()) == {"bot/control", "bot/treatment"}
        await house.settled()
        records = house.exchanges()
        assert len(records) == len({record.id for record in records}) == 24
        assert {record.experiment for record in records} == {"bot"}


async def test_the_second_answer_comes_from_the_cache(tmp_path: Path, stub: Any) -> None:
    async with running(tmp_path, route={"cache": CachePolicy(mode="exact")}) as house:
        seen = []
        for who in (credentials(), credentials(), credentials(OTHER)):
            call = stub.ModelInfer(question("hello you", temperature=0.0), metadata=who)
            assert texts(await call) == ["hello you"]
            seen.append(dict(await call.trailing_metadata())["x-penstock-cache"])
        assert seen == ["miss", "hit", "miss"]
        assert len(house.mock.asked) == 2
        streamed = [
            [
                one
                async for one in stub.ModelStreamInfer(iter([question("a b", temperature=0.0)]), metadata=credentials())
            ]
            for _ in range(2)
        ]
        said = [
            "".join(texts(one.infer_response)[0] for one in each if one.infer_response.outputs) for each in streamed
        ]
        assert said == ["a b", "a b"]
        await house.settled()
        assert [record.cache for record in house.exchanges()] == ["miss", "hit", "miss", "miss", "hit"]


async def test_a_stream_of_questions(tmp_path: Path, stub: Any) -> None:
    asked = [
        question("one two three", name="a"),
        question("!error two three", name="b"),
        question("hi", name="c", model="nobody"),
        question("whole", name="d", stream=False),
    ]
    async with running(tmp_path) as house:
        got = [one async for one in stub.ModelStreamInfer(iter(asked), metadata=credentials())]
        answers: dict[str, list[Any]] = {}
        for one in got:
            answers.setdefault(one.infer_response.id, []).append(one)
        assert list(answers) == ["a", "b", "c", "d"]
        for each in answers.values():
            marks = [one.infer_response.parameters["triton_final_response"].bool_param for one in each]
            assert marks == [False] * (len(each) - 1) + [True]
        pieces = [one.infer_response for one in answers["a"] if one.infer_response.outputs]
        assert [texts(piece)[0] for piece in pieces] == ["one", " two", " three", ""]
        assert answers["a"][-1].infer_response.parameters["completion_tokens"].int64_param == 4
        assert answers["b"][-1].error_message == "out of memory"
        assert "nobody" in answers["c"][0].error_message
        assert answers["c"][0].infer_response.parameters["error_code"].string_param == "model_not_found"
        assert texts(answers["d"][0].infer_response) == ["whole"]
        await house.settled()
        assert [record.outcome for record in house.exchanges()] == ["ok", "crashed", "refused", "ok"]

        strict = credentials(triton_grpc_error="true")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stub.ModelStreamInfer(iter([question("hi", model="nobody")]), metadata=strict):
                pass
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stub.ModelStreamInfer(iter([question("hi")]), metadata=credentials("sk-wrong")):
                pass
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_who_leaves_stops_the_engine(tmp_path: Path, stub: Any) -> None:
    """By cancelling a call or a stream, and by a deadline that passes."""
    async with running(tmp_path) as house:
        call = stub.ModelInfer(question("!wait"), metadata=credentials())
        waiting = asyncio.ensure_future(call)
        await until(lambda: house.mock.running == 1)
        call.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled() or waiting.exception() is not None
        await until(lambda: house.mock.left == 1)

        stream = stub.ModelStreamInfer(iter([question("!stall two three")]), metadata=credentials())
        first = await stream.read()
        assert texts(first.infer_response) == ["!stall"]
        stream.cancel()
        await until(lambda: house.mock.left == 2)

        error = await refused(stub.ModelInfer(question("!wait"), metadata=credentials(), timeout=1.0))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: house.mock.left == 3)
        await house.settled()
        assert [record.outcome for record in house.exchanges()] == ["cancelled"] * 3


async def test_tls_is_the_gateways(tmp_path: Path) -> None:
    pair = make_certificate(tmp_path / "tls")
    async with running(tmp_path), serving(tmp_path, tls=pair) as stub:
        assert texts(await stub.ModelInfer(question("hi"), metadata=credentials())) == ["hi"]


async def test_without_a_worker_it_says_so_and_with_one_it_goes_on(tmp_path: Path, stub: Any) -> None:
    pb, _ = generated()
    assert (await stub.ServerLive(pb.ServerLiveRequest())).live
    assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready
    error = await refused(stub.ModelInfer(question("hi"), metadata=credentials()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    async with running(tmp_path):
        assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
        assert texts(await stub.ModelInfer(question("hi"), metadata=credentials())) == ["hi"]


def test_parameters_are_of_their_kind() -> None:
    made = parameters({"a": True, "b": 1, "c": 0.5, "d": "x"})
    kinds = [one.WhichOneof("parameter_choice") for one in made.values()]
    assert kinds == ["bool_param", "int64_param", "double_param", "string_param"]
