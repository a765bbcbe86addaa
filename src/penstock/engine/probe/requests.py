"""The declared requests of a probe: a file of prompts."""

import json
from pathlib import Path

from penstock.core.errors import BadRequest
from penstock.engine.probe.run import Asked


def read_prompts(file: Path) -> list[Asked]:
    """What `file` declares, a request a line: a text, or JSON: `{"prompt": ..., "answer"?: ...}` or `{"messages": [...], "answer"?: ...}`.

    Empty lines and those that begin with # are left out.

    Raises:
        BadRequest: naming the line, if one is JSON of another form, or nothing is declared.
    """
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if text and not text.startswith("#"):
            found.append(
                _declared(text, f"{file}, line {number}") if text.startswith("{") else Asked((("user", text),))
            )
    if not found:
        raise BadRequest(f"{file} declares no request.", code="nothing_to_probe", param="--prompts")
    return found


def _declared(text: str, where: str) -> Asked:
    try:
        told = json.loads(text)
        answer = str(told.get("answer", ""))
        if "prompt" in told:
            return Asked((("user", str(told["prompt"])),), answer)
        return Asked(tuple((str(one["role"]), str(one["content"])) for one in told["messages"]), answer)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadRequest(
            f'{where} is no request: a text, {{"prompt": ...}} or {{"messages": [...]}} is.', param="--prompts"
        ) from None
