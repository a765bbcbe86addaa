"""Content that a policy wants kept: gathered when the request is over, masked, cut to its bound, sealed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from penstock.core.exchange import Content
from penstock.gateway.call import Call
from penstock.journal.content import Said
from penstock.journal.keystore import subject_of
from penstock.wire.envelope import ChatEnvelope, Message
from penstock.wire.spoken import texts_of, texts_of_events

if TYPE_CHECKING:
    from penstock.gateway.index import Rules
    from penstock.guard.masking import Masker

_log = logging.getLogger("penstock.gateway")
_MARGIN = 300  # characters behind a cut that are looked at too: more than an address, an account or a card has


def begin(call: Call, rules: Rules) -> None:
    """Draws whether the request's content is kept."""
    share = rules.policy.capture_share
    call.captured = share >= 1.0 or call.gateway.draw() < share


def seal_all(calls: list[Call]) -> None:
    """Seals the contents of requests that are over; `content` stays None where that cannot be done, and the vault counts it.

    One step after the other for all of them, as the recorder does with records, and for the same reason.
    """
    gathered: list[tuple[Call, Said, bool]] = []
    for call in calls:
        try:
            gathered.append((call, *_said(call)))
        except Exception as error:  # noqa: BLE001 - one content is lost here, the other requests' records must not be; it is counted
            if call.gateway.vault is not None:
                call.gateway.vault.lost += 1
            _log.exception("the content of %s could not be gathered", call.id, exc_info=error)
    for call, said, cut in gathered:
        rules, vault, caller = call.rules, call.gateway.vault, call.caller
        if rules is not None and vault is not None and caller is not None:
            try:
                sealed = vault.seal(caller.tenant.name, subject_of(call.user, call.session), call.id, said)
            except Exception as error:  # noqa: BLE001 - as above
                vault.lost += 1
                _log.exception("the content of %s could not be sealed", call.id, exc_info=error)
                continue
            if sealed is not None:
                call.content = Content(sealed[0], sealed[1], rules.masker is not None, cut)


def _said(call: Call) -> tuple[Said, bool]:
    """What was said, masked, as far as it is kept, and whether anything was left out."""
    rules = call.rules
    if rules is None:
        return Said(), False
    messages, replies = _asked(call), _answered(call)
    asked = len(messages)
    texts = [text for _, text in messages] + [text for _, _, text in replies]
    if rules.masker is not None and _found_in_question(call):
        texts = _under_rules(rules, texts, asked)
    texts, cut = _kept(texts, asked, rules)
    said = Said(
        tuple([(role, text) for (role, _), text in zip(messages, texts, strict=False)]),
        tuple([(index, field, text) for (index, field, _), text in zip(replies, texts[asked:], strict=True)]),
    )
    return said, cut


def _found_in_question(call: Call) -> bool:
    return bool(call.findings) and any(finding.where == "input" for finding in call.findings)


def _asked(call: Call) -> list[tuple[str, str]]:
    envelope = call.envelope
    if isinstance(envelope, ChatEnvelope):
        return [(message.role, _text(message)) for message in envelope.messages]
    role = "input" if call.operation == "embeddings" else "prompt"
    return [(role, text) for text in envelope.texts()]


def _text(message: Message) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    return "\n".join([part.text if part.text is not None else f"[{part.type}]" for part in content])


def _answered(call: Call) -> list[tuple[int, str, str]]:
    if call.operation == "embeddings" or call.status != 200:
        return []
    entry = call.recalled
    if not call.stream:
        return texts_of(entry.body if entry is not None else call.tail)
    if entry is not None:
        return texts_of_events([entry.body])
    return texts_of_events(call.kept) if call.kept else []


def _under_rules(rules: Rules, texts: list[str], asked: int) -> list[str]:
    """What the client asked as the content rules let it pass: what they mask or block is not to be found here either."""
    guard = rules.guard
    if guard is None:
        return texts
    return [guard.scan_input(text).text for text in texts[:asked]] + texts[asked:]


def _kept(texts: list[str], asked: int, rules: Rules) -> tuple[list[str], bool]:
    """The texts, masked, as far as they are kept, and whether anything was left out.

    The answer comes first, in at most half of the room if the question needs the other half; then the newest turns.
    """
    masker, room = rules.masker, rules.policy.capture_chars
    if sum(map(len, texts)) <= room:
        return (masker.mask(texts) if masker is not None else texts), False
    kept = [""] * len(texts)
    for_answer = max(room // 2, room - sum(map(len, texts[:asked])))
    room -= for_answer - _fit(texts, range(asked, len(texts)), for_answer, masker, kept)
    _fit(texts, range(asked - 1, -1, -1), room, masker, kept)
    return kept, True


def _whole_words(text: str) -> str:
    """`text` without the last word, if that is longer than the margin: nobody has seen what it would have been."""
    begin = max(text.rfind(" "), text.rfind("\n")) + 1
    return text[:begin] if len(text) - begin > _MARGIN else text


def _fit(texts: list[str], order: range, room: int, masker: Masker | None, kept: list[str]) -> int:
    """Puts what there is room for of the texts in this order into `kept`; how much room is left."""
    for at in order:
        if room <= 0:
            break
        text = texts[at]
        if masker is None:
            kept[at] = text[:room]
        elif len(text) <= room:
            kept[at] = masker.mask([text])[0]
        else:  # what reaches across the cut is seen behind it, or falls within the margin that goes
            masked = masker.mask([text[: room + _MARGIN]])[0]
            kept[at] = _whole_words(masked[: max(0, min(room, len(masked) - _MARGIN))])
        room -= len(text)
    return max(0, room)
