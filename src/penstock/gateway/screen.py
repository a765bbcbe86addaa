"""Step 5: the content rules on what the client sends."""

from typing import Any

import msgspec

from penstock.core.errors import ContentFiltered
from penstock.core.exchange import Finding
from penstock.gateway.call import Call, Operation
from penstock.guard.policies import Guard
from penstock.wire.edit import replaced

_FIELDS: dict[Operation, str] = {  # of the body as it is sent on
    "chat": "messages",
    "completions": "prompt",
    "embeddings": "input",
    "responses": "messages",
}


def screen(call: Call) -> None:
    """Blocks or masks the texts of the request as the policy says.

    Raises:
        ContentFiltered: if a rule blocks.
    """
    rules = call.rules
    if rules is None or not rules.screens_input or rules.guard is None:
        return
    guard = rules.guard
    masked = False
    for text in call.envelope.texts():
        screened = guard.scan_input(text)
        if screened.findings:
            call.findings = merged(call.findings, screened.findings)
        if screened.blocked is not None:
            raise ContentFiltered(f"The rule {screened.blocked!r} does not allow this content.", param=_field(call))
        if screened.text != text:
            masked = True
    if masked:
        call.body = replaced(call.body, {_field(call): _masked(call, guard)})


def merged(old: tuple[Finding, ...], new: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """All findings, one for each rule, action and place, with their counts summed."""
    if not old:
        return new
    counts: dict[tuple[str, str, str], int] = {}
    for finding in (*old, *new):
        key = (finding.rule, finding.action, finding.where)
        counts[key] = counts.get(key, 0) + finding.count
    return tuple(Finding(*key, count) for key, count in counts.items())


def _field(call: Call) -> str:
    return _FIELDS[call.operation]


def _masked(call: Call, guard: Guard) -> Any:
    value = msgspec.json.decode(call.body)[_field(call)]
    if call.operation in {"completions", "embeddings"}:
        if isinstance(value, str):
            return guard.scan_input(value).text
        return [guard.scan_input(one).text if isinstance(one, str) else one for one in value]
    for message in value:
        content = message.get("content")
        if isinstance(content, str):
            message["content"] = guard.scan_input(content).text
        elif isinstance(content, list):
            for part in content:
                if isinstance(part.get("text"), str):
                    part["text"] = guard.scan_input(part["text"]).text
    return value
