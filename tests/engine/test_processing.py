"""Processing of a version: streams give what the whole text gives, whatever the pieces; what cannot be is refused by path."""

import itertools
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import BadRequest, UpstreamFailed
from penstock.engine.processing import Chain, Processor, read_processor
from penstock.registry.processing import Python, check_code, read_processing


def made(output: list[dict], **more: object) -> bytes:
    return json.dumps({"output": output, **more}).encode()


def chain_of(output: list[dict]) -> Chain:
    chain = read_processor(made(output)).answer()
    assert chain is not None
    return chain


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in itertools.pairwise(places)]


STEPS = st.lists(
    st.sampled_from(
        [
            {"do": "trim"},
            {"do": "trim", "side": "start"},
            {"do": "trim", "side": "end"},
            {"do": "replace", "pattern": "ab+", "to": "<\\0>"},
            {"do": "replace", "pattern": "(a)(b)?", "to": "\\2\\1\\\\"},
            {"do": "replace", "pattern": "\\ba\\b", "to": "X"},
            {"do": "replace", "pattern": "<t>[^<]*</t>\\s*", "to": ""},
            {"do": "replace", "pattern": "^a|b$", "to": "!"},
            {"do": "replace", "pattern": "(?i)é+", "to": "e"},
            {"do": "replace", "pattern": "\\s+", "to": " "},
            {"do": "replace", "pattern": "<t>[\\s\\S]*?</t>", "to": "."},
            {"do": "replace", "pattern": "(?s)aa.+?a", "to": ""},
            {"do": "template", "template": "« {text} »"},
        ]
    ),
    min_size=1,
    max_size=4,
)
TEXTS = st.text(alphabet=st.sampled_from(list("aabb  \n<>t/éÉ.")), max_size=60) | st.builds(
    lambda a, b: f"{a}<t>{b}</t> {a}", st.text("ab ", max_size=9), st.text("ab ", max_size=9)
)


@settings(max_examples=300, deadline=None)
@given(STEPS, TEXTS, st.lists(st.integers(0, 80), max_size=12))
def test_a_stream_gives_what_the_whole_text_gives(steps: list[dict], text: str, cuts: list[int]) -> None:
    processor = read_processor(made(steps))
    first, second = processor.answer(), processor.answer()
    assert first is not None
    assert second is not None
    whole = first.whole(text)
    shown = ""
    for piece in pieces(text, cuts):
        shown += second.feed(piece)
        assert whole.startswith(shown), "what was released is final"
    assert shown + second.finish() == whole


@given(st.text("ab \n", max_size=40))
def test_replacement_is_that_of_python(text: str) -> None:
    """The oracle is another engine; where both know the syntax they agree."""
    assert chain_of([{"do": "replace", "pattern": "a+b?", "to": "-"}]).whole(text) == re.sub("a+b?", "-", text)


def test_nothing_is_held_longer_than_it_must() -> None:
    chain = chain_of([{"do": "replace", "pattern": "<think>[\\s\\S]*?</think>", "to": ""}])
    assert chain.feed("Hello <b") == "Hello <b"
    assert chain.feed(" and <th") == " and "
    assert chain.feed("ere") == "<there"
    assert chain.feed(" <think>long thoughts") == " "
    assert chain.feed("</think> done") == " done"
    assert chain.finish() == ""


@pytest.mark.parametrize(
    ("step", "text", "wanted"),
    [
        ({"do": "json", "path": "answer"}, 'Sure: {"answer": "42", "why": []} bye', "42"),
        ({"do": "json", "path": "items.1"}, '{"items": [1, {"a": 2}]}', '{"a":2}'),
        ({"do": "json"}, "see [1, 2]", "[1,2]"),
        ({"do": "json", "path": "answer"}, "no json {at all", "no json {at all"),
        ({"do": "json", "path": "answer", "otherwise": "empty"}, '{"other": 1}', ""),
        ({"do": "extract", "pattern": "Answer: (\\w+)", "group": 1}, "Well. Answer: yes.", "yes"),
        ({"do": "extract", "pattern": "Answer: (\\w+)", "otherwise": "empty"}, "Well.", ""),
    ],
)
def test_steps_on_whole_answers(step: dict, text: str, wanted: str) -> None:
    processor = read_processor(made([step]))
    assert not processor.streams
    assert chain_of([step]).whole(text) == wanted
    assert read_processor(made([step], stream="hold")).streams


def test_what_must_be_there_and_is_not_fails() -> None:
    chain = chain_of([{"do": "json", "path": "a", "otherwise": "fail"}])
    with pytest.raises(UpstreamFailed) as refused:
        chain.whole("nothing")
    assert refused.value.code == "processing_failed"


async def test_users_texts_alone_are_processed_on_their_way_in() -> None:
    processor = read_processor(
        json.dumps({"input": [{"do": "trim"}, {"do": "template", "template": "Q: {text}"}]}).encode()
    )
    said = [{"role": "system", "content": " s "}, {"role": "user", "content": " hi "}]
    assert await processor.chats(said) == [{"role": "system", "content": " s "}, {"role": "user", "content": "Q: hi"}]
    assert processor.answer() is None


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("[]", "processing.json"),
        ("{", "processing.json"),
        ('{"outputs": []}', "processing.json"),
        ('{"output": [{"do": "shell"}]}', "processing.json"),
        ('{"output": [{"do": "replace", "pattern": "("}]}', "processing.json.output.0.pattern"),
        ('{"output": [{"do": "replace", "pattern": "a*"}]}', "processing.json.output.0.pattern"),
        ('{"output": [{"do": "replace", "pattern": "a(?=b)"}]}', "processing.json.output.0.pattern"),
        ('{"output": [{"do": "replace", "pattern": "\\\\Ca"}]}', "processing.json.output.0.pattern"),
        ('{"output": [{"do": "replace", "pattern": "a", "to": "\\\\1"}]}', "processing.json.output.0.to"),
        ('{"output": [{"do": "extract", "pattern": "a", "group": 1}]}', "processing.json.output.0.group"),
        ('{"input": [{"do": "template", "template": "no place"}]}', "processing.json.input.0.template"),
        ('{"entry": "hook.py"}', "processing.json"),
        ('{"output": [{"do": "python"}]}', "processing.json"),
        ('{"output": [{"do": "python", "function": "os.system"}]}', "processing.json"),
        ('{"output": [{"do": "python", "function": "f", "seconds": 11}]}', "processing.json"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(text: str, path: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read_processor(text.encode())
    assert refused.value.param == path
    assert refused.value.code == "bad_processing"


def test_a_file_that_is_too_large_is_refused() -> None:
    with pytest.raises(BadRequest, match="KiB"):
        read_processing(b" " * ((1 << 18) + 1))


class Backwards:
    """Code of a version's own, in this process: tests of the steps around it need no other."""

    async def call(self, step: Python, text: str) -> str:
        if step.function == "refuse":
            raise UpstreamFailed("The code says no.", code="processing_failed")
        if step.function == "die":
            raise UpstreamFailed("It died.", code="processing_killed")
        return text[::-1]


def calling(where: str, *functions: str, **more: object) -> Processor:
    steps = [
        {"do": "trim"},
        *({"do": "python", "function": name} for name in functions),
        {"do": "template", "template": "<{text}>"},
    ]
    processor = read_processor(json.dumps({where: steps, **more}).encode())
    processor.use(Backwards())
    return processor


async def test_steps_before_and_after_code_are_done_in_their_order() -> None:
    assert await calling("input", "f").asked("  abc ") == "<cba>"
    processor = calling("output", "f", "f")
    assert processor.calls_on_answers
    assert not processor.streams
    assert calling("output", "f", stream="hold").streams
    chain = processor.answer()
    assert chain is not None
    assert await processor.complete(chain.whole("  abc ")) == "<abc>"
    assert [step.function for step in processor.calls] == ["f", "f"]


async def test_code_that_refuses_a_request_is_the_clients_matter_and_code_that_dies_is_not() -> None:
    with pytest.raises(BadRequest) as refused:
        await calling("input", "refuse").asked("x")
    assert (refused.value.code, refused.value.param) == ("processing_failed", "messages")
    with pytest.raises(UpstreamFailed, match="died"):
        await calling("input", "die").asked("x")


@pytest.mark.parametrize(
    ("steps", "code", "words"),
    [
        ([{"do": "python", "function": "f"}], None, "there is no such file"),
        ([{"do": "trim"}], b"def f(x): return x", "no step there does"),
        (None, b"def f(x): return x", "no step there does"),
        ([{"do": "python", "function": "f"}], b" " * ((1 << 18) + 1), "256 KiB"),
        ([{"do": "python", "function": "f"}], b"\xff", "not UTF-8"),
    ],
)
def test_code_and_the_steps_that_call_it_come_together(
    steps: list[dict] | None, code: bytes | None, words: str
) -> None:
    with pytest.raises(BadRequest, match=words) as refused:
        check_code(None if steps is None else made(steps), code)
    assert refused.value.code == "bad_processing"
    check_code(made([{"do": "python", "function": "f"}]), b"def f(x): return x")
    check_code(None, None)
