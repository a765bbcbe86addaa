"""Content that a policy wants kept: gathered when the request is over, masked, cut to its bound, sealed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from penstock.core.exchange import Content
from penstock.gateway.call import Call
from penstock.journal.keystore import subject_of
from penstock.journal.sealing import Messages, Replies
from penstock.wire.envelope import NOTHING, ChatEnvelope, Message
from penstock.wire.spoken import CALL, calls_of, texts_of, texts_of_events

if TYPE_CHECKING:
    from penstock.gateway.index import Rules
    from penstock.guard.masking import Masker

_log = logging.getLogger("penstock.gateway")
_MARGIN = 300  # characters behind a cut that are looked at too: more than an address, an account or a card has


def begin(call: Call, rules: Rules) -> None:
    """Draws whether the request's content is kept."""
    share = rules.policy.capture_share
    call.captured = share >= 1.0 or call.gateway.draw() < share


class _Gathered:
    """What was said in one request, on its way to be sealed."""

    def __init__(self, call: Call, rules: Rules, messages: Messages, replies: Replies) -> None:
        self.call = call
        self.rules = rules
        self.messages = messages
        self.replies = replies
        self.texts = [text for _, text in messages] + [text for _, _, text in replies]
        self.cut = False
        self.ready = False  # masked, or nothing is to be

    def put(self, texts: list[str]) -> None:
        """These texts take the place of those that were said."""
        asked = len(self.messages)
        self.messages = [(role, text) for (role, _), text in zip(self.messages, texts, strict=False)]
        self.replies = [(at, field, text) for (at, field, _), text in zip(self.replies, texts[asked:], strict=True)]
        self.ready = True


def seal_all(calls: list[Call]) -> None:
    """Seals the contents of requests that are over; `content` stays None where that cannot be done, and the vault counts it.

    One step after the other for all of them, as the recorder does with records, and for the same reason.
    """
    gathered: list[_Gathered] = []
    for call in calls:
        try:
            one = _gathered(call)
        except Exception as error:  # noqa: BLE001 - one content is lost here, the other requests' records must not be; it is counted
            _lose(call, error)
            continue
        if one is not None:
            gathered.append(one)
    _let_clean_ones_pass(gathered)
    for one in gathered:
        try:
            _seal(one)
        except Exception as error:  # noqa: BLE001 - as above
            _lose(one.call, error)


def _lose(call: Call, error: Exception) -> None:
    if call.gateway.vault is not None:
        call.gateway.vault.lost += 1
    _log.exception("the content of %s could not be kept", call.id, exc_info=error)


def _gathered(call: Call) -> _Gathered | None:
    """What was said, as far as it is kept; not masked yet, unless something had to be left out."""
    rules = call.rules
    if rules is None:
        return None
    one = _Gathered(call, rules, _asked(call), _answered(call))
    masker, asked = rules.masker, len(one.messages)
    if masker is not None and _found_in_question(call):
        one.texts = _under_rules(rules, one.texts, asked)
        one.put(one.texts)
    one.ready = masker is None
    if sum(map(len, one.texts)) > rules.policy.capture_chars:
        one.cut = True
        one.put(_cut(one.texts, asked, rules))
    return one


def _let_clean_ones_pass(gathered: list[_Gathered]) -> None:
    """Marks as ready what nothing is to be masked in: one search for all whose policies mask the same, since it mostly finds nothing."""
    waiting: dict[Masker, list[_Gathered]] = {}
    for one in gathered:
        masker = one.rules.masker
        if masker is not None and not one.ready:
            waiting.setdefault(masker, []).append(one)
    for masker, some in waiting.items():
        if len(some) > 1 and masker.clean([text for one in some for text in one.texts]):
            for one in some:
                one.ready = True


def _seal(one: _Gathered) -> None:
    call, masker = one.call, one.rules.masker
    vault, caller = call.gateway.vault, call.caller
    if vault is None or caller is None:
        return
    if masker is not None and not one.ready:
        masked = masker.mask(one.texts)
        if masked is not one.texts:
            one.put(masked)
    subject = subject_of(call.user, call.session)
    sealed = vault.seal(caller.tenant.name, subject, call.id, one.messages, one.replies)
    if sealed is not None:
        call.content = Content(sealed[0], sealed[1], masker is not None, one.cut)


def _found_in_question(call: Call) -> bool:
    return bool(call.findings) and any(finding.where == "input" for finding in call.findings)


def _asked(call: Call) -> list[tuple[str, str]]:
    envelope = call.envelope
    if isinstance(envelope, ChatEnvelope):
        asked: list[tuple[str, str]] = []
        for message in envelope.messages:
            if message.tool_calls is NOTHING and message.function_call is NOTHING:
                asked.append((message.role, _text(message)))
                continue
            if message.content:
                asked.append((message.role, _text(message)))
            asked += [(CALL, text) for text in calls_of(message)]
        return asked
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


def _cut(texts: list[str], asked: int, rules: Rules) -> list[str]:
    """The texts, masked, as far as there is room for them.

    The answer comes first, in at most half of the room if the question needs the other half; then the newest turns.
    """
    masker, room = rules.masker, rules.policy.capture_chars
    kept = [""] * len(texts)
    for_answer = max(room // 2, room - sum(map(len, texts[:asked])))
    room -= for_answer - _fit(texts, range(asked, len(texts)), for_answer, masker, kept)
    _fit(texts, range(asked - 1, -1, -1), room, masker, kept)
    return kept


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
