"""From a request's id to weights, build, revision and data; and a version whose own steps change what its weights answer: the real model."""

import json
import shutil
from pathlib import Path

import httpx
import openai
import pytest

from tests.system.program import penstock
from tests.system.starter import ROOT, Up
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(240)]
ASKED = [{"role": "user", "content": "Where is my order 4471902?"}]


def ask(up: Up, model: str, *, stream: bool = False) -> tuple[str, str]:
    """The answer and the request's id."""
    with openai.OpenAI(base_url=f"{up.gateway}/v1", api_key=up.secret("demo.key"), max_retries=0, timeout=60) as client:
        raw = client.chat.completions.with_raw_response.create(
            model=model,
            messages=ASKED,  # type: ignore[arg-type]
            temperature=0,
            max_tokens=60,
            stream=stream,
        )
        told = raw.parse()
        if stream:
            text = "".join(c.delta.content or "" for event in told for c in event.choices)  # type: ignore[union-attr]
        else:
            text = told.choices[0].message.content or ""  # type: ignore[union-attr]
        return text, raw.headers["x-penstock-request-id"]


def test_an_answer_is_traced_to_its_data_and_other_steps_are_another_answer(up: Up, tmp_path: Path) -> None:
    plain, request = ask(up, "support-bot")
    behind = penstock(up, "explain", request)["provenance"]
    assert behind["build"]["precision"] == "int8"
    assert [one["environment"] for one in behind["deployments"]] == ["production"]
    assert {one["name"] for one in behind["data"]} >= {"larkfield-corpus", "larkfield-questions"}
    assert not any(one["custody"]["gaps"] for one in behind["data"])

    folder = tmp_path / "m"
    shutil.copytree(ROOT / "examples/support_bot/models/support-bot-v1.0.0", folder)
    steps = {
        "output": [
            {"do": "replace", "pattern": "(?i)[aeiou]", "to": "<\\0>"},
            {"do": "template", "template": "[{text}]"},
        ]
    }
    (folder / "processing.json").write_text(json.dumps(steps))
    pushed = penstock(up, "models", "push", str(folder), "shouting:run1", "--base", "support-bot:v1.0.0")
    try:
        penstock(up, "models", "alias", "set", "shouting@tried", "shouting:run1")
        stack = tmp_path / "stack.yaml"
        stack.write_text(
            'kind: Pool\nname: shouting\nspec: {build: "shouting@tried"}\n---\n'
            "kind: Route\nname: shouting\nspec: {to: [{pool: shouting}]}\n"
        )
        penstock(up, "apply", "-f", str(stack))
        until(lambda: answers(up, "shouting") or None, 60)
        whole, named = ask(up, "shouting")
        assert whole.startswith("[")
        assert whole.endswith("]")
        assert "<" in whole
        assert ask(up, "shouting", stream=True)[0] == whole
        assert whole != plain
        assert penstock(up, "explain", named)["provenance"]["digest"] == pushed["digest"]
        found = penstock(up, "models", "diff", "support-bot:v1.0.0", "shouting@tried")
        assert found["suggestion"]["bump"] == "major"
        assert (found["difference"]["tensors"]["changed"], found["difference"]["tensors"]["same"] > 10) == ([], True)
    finally:
        with httpx.Client(
            base_url=f"{up.control}/api/v1", headers={"authorization": f"Bearer {up.secret('admin.key')}"}
        ) as api:
            api.delete("/routes/shouting")
            api.delete("/pools/shouting")


def answers(up: Up, model: str) -> bool:
    """Whether the gateway leads anywhere for `model` by now."""
    try:
        ask(up, model)
    except openai.APIStatusError:
        return False
    return True


def test_code_that_a_version_brings_answers_once_it_is_signed(up: Up, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(ROOT / "examples/support_bot/models/support-bot-v1.0.0", folder)
    (folder / "processing.json").write_text(json.dumps({"output": [{"do": "python", "function": "shout"}]}))
    (folder / "processing.py").write_text("def shout(text):\n    return text.upper() + '!'\n")
    first = penstock(up, "models", "push", str(folder), "coded:run1", "--base", "support-bot:v1.0.0")
    try:
        stack = tmp_path / "stack.yaml"
        stack.write_text(
            'kind: Pool\nname: coded\nspec: {build: "coded:run1"}\n---\n'
            "kind: Route\nname: coded\nspec: {to: [{pool: coded}]}\n"
        )
        with httpx.Client(
            base_url=f"{up.control}/api/v1", headers={"authorization": f"Bearer {up.secret('admin.key')}"}
        ) as api:
            asked = (
                ("/promote", "json", b'{"model": "coded", "label": "run1"}'),
                ("/apply", "yaml", stack.read_bytes()),
            )
            for path, kind, body in asked:
                refused = api.post(path, content=body, headers={"content-type": f"application/{kind}"})
                assert refused.status_code == 409, refused.text
                assert refused.json()["error"]["code"] == "code_not_signed"
        penstock(up, "signers", "create", "coded")
        penstock(up, "models", "sign", "coded:run1", "--signer", "coded")
        penstock(up, "apply", "-f", str(stack))
        until(lambda: answers(up, "coded") or None, 60)
        said, request = ask(up, "coded")
        assert said == ask(up, "support-bot")[0].upper() + "!"
        assert penstock(up, "explain", request)["provenance"]["digest"] == first["digest"]
        (folder / "processing.py").write_text("def shout(text):\n    return text.upper() + '?'\n")
        second = penstock(up, "models", "push", str(folder), "coded:run2", "--base", "support-bot:v1.0.0")
        assert second["digest"] != first["digest"]
        penstock(up, "models", "sign", "coded:run2", "--signer", "coded")
        stack.write_text('kind: Pool\nname: coded\nspec: {build: "coded:run2"}\n')
        penstock(up, "apply", "-f", str(stack))
        until(lambda: (answers(up, "coded") and ask(up, "coded")[0].endswith("?")) or None, 60)
    finally:
        with httpx.Client(
            base_url=f"{up.control}/api/v1", headers={"authorization": f"Bearer {up.secret('admin.key')}"}
        ) as api:
            api.delete("/routes/coded")
            api.delete("/pools/coded")
