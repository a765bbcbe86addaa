"""Every error of the tree in OpenAI's shape, and back as the official client's own classes."""

import inspect

import msgspec
import openai
import pytest

from penstock.core import errors
from penstock.core.errors import PenstockError, RateLimited, Unavailable
from penstock.net.server import Reply, Request
from penstock.wire.answer import decode_answer
from penstock.wire.ending import finish_of, usage_of
from penstock.wire.openai import error_body, error_event, error_headers
from tests.net.sockets import serving

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, PenstockError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_the_official_client_understands_every_error(kind: type[PenstockError]) -> None:
    error = kind("Something is wrong.", param="messages[0].content")

    async def fail(_request: Request, reply: Reply) -> None:
        reply.send(error.status, error_headers(error), error_body(error))

    async with serving(fail) as server:
        url = f"http://127.0.0.1:{server.port}"
        async with openai.AsyncOpenAI(api_key="x", base_url=url, max_retries=0) as client:
            with pytest.raises(openai.APIStatusError) as caught:
                await client.models.list()
    assert caught.value.status_code == error.status
    assert (caught.value.code, caught.value.param, caught.value.type) == (error.code, error.param, error.type)


def test_retry_after_is_in_whole_seconds() -> None:
    assert error_headers(RateLimited("x", retry_after=0.2))[-1] == (b"retry-after", b"1")
    assert error_headers(RateLimited("x", retry_after=3.1))[-1] == (b"retry-after", b"4")
    assert error_headers(RateLimited("x", retry_after=60.5))[1:] == [
        (b"retry-after", b"61"),
        (b"x-should-retry", b"false"),
    ]
    assert error_headers(RateLimited("x"))[1:] == [(b"x-should-retry", b"false")], "it can never be served"
    assert len(error_headers(Unavailable("x", retry_after=90.0))) == 2


def test_an_error_is_an_event_too() -> None:
    event = error_event(RateLimited("x\ny"))
    assert event.count(b"\n") == 2
    assert msgspec.json.decode(event[6:])["error"]["message"] == "x\ny"


@pytest.mark.parametrize(
    ("text", "usage"),
    [
        (b'{"usage":{"prompt_tokens":3,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":2}}}', (3, 4, 2)),
        (b'{"usage":{"prompt_tokens":3,"completion_tokens":null}}', (3, 0, 0)),
        (b'{"usage":{"prompt_tokens":-1,"completion_tokens":4}}', None),
        (b'{"usage":{"prompt_tokens":1,"completion_tokens":4000000000000}}', None),
        (b'{"usage":{"prompt_tokens":1,"prompt_tokens_details":{"cached_tokens":2}}}', None),
        (b'{"usage":null}', None),
        (b"{}", None),
    ],
)
def test_usage(text: bytes, usage: tuple[int, int, int] | None) -> None:
    found = usage_of(decode_answer(text).usage)
    assert (None if found is None else (found.prompt, found.completion, found.cached)) == usage


def test_errors_and_finish_reasons_in_answers() -> None:
    assert decode_answer(b'{"error":{"message":"x"}}').failed
    assert decode_answer(b'{"error":"x"}').failed
    assert not decode_answer(b'{"error":null}').failed
    assert (
        finish_of(decode_answer(b'{"choices":[{"finish_reason":null},{"finish_reason":"length"}]}').choices) == "length"
    )
