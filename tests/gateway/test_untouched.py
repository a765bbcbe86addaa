"""What a client writes arrives as it was written: the engine's business is none of the gateway's."""

from pathlib import Path

import msgspec

from tests.gateway.house import running
from tests.gateway.raw_client import ask, post

# Spaces, escapes, number forms, order and fields of the future: none of it may be changed by being passed on.
BODY = rb"""{ "logprobs" : true, "top_logprobs":3,"model":"mock" ,
 "messages":[ {"role":"user","content":"caf\u00e9 ","name":"a\/b"},
  {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}}]},
  {"role":"tool","tool_call_id":"c1","content":"sunny"}],
 "tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type":"integer"}}},"strict":true}},
          {"type":"custom","custom":{"name":"g"}}],
 "tool_choice":{"type":"function","function":{"name":"f"}}, "parallel_tool_calls":false,
 "response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{"z":1,"a":2}}},
 "temperature":1.50, "logit_bias":{"50256":-100}, "prediction":null, "modalities":["text"], "store" : false,
 "future":{"big":123456789012345678901234567890,"tiny":1e-300,"e":1E2,"deep":[[[{"x":[]}]]]}, "max_completion_tokens":16}"""


async def test_a_chat_arrives_byte_for_byte(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        got = await ask(house.port, post("/v1/chat/completions", BODY))
        assert got.status == 200
        assert house.mock.bodies == [BODY]


async def test_a_completion_arrives_byte_for_byte(tmp_path: Path) -> None:
    body = b'{"suffix" : "x","prompt":"hi","echo":true , "logprobs":5,"best_of":2,"model":"mock","future":[1.0]}'
    async with running(tmp_path) as house:
        assert (await ask(house.port, post("/v1/completions", body))).status == 200
        assert house.mock.bodies == [body]


async def test_a_stream_arrives_with_nothing_but_the_question_for_usage(tmp_path: Path) -> None:
    body = BODY[:1] + b'"stream":true,' + BODY[1:]
    async with running(tmp_path) as house:
        assert (await ask(house.port, post("/v1/chat/completions", body))).status == 200
        assert house.mock.bodies == [b'{"stream_options":{"include_usage":true},' + body[1:]]


async def test_an_edit_leaves_every_other_member_as_it_was(tmp_path: Path) -> None:
    members = msgspec.json.Decoder(dict[str, msgspec.Raw])
    async with running(tmp_path, pool={"model": "inner"}) as house:
        assert (await ask(house.port, post("/v1/chat/completions", BODY))).status == 200
        before, after = members.decode(BODY), members.decode(house.mock.bodies[0])
        assert bytes(after.pop("model")) == b'"inner"'
        del before["model"]
        assert {name: bytes(raw) for name, raw in after.items()} == {name: bytes(raw) for name, raw in before.items()}
