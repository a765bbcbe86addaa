"""Which messages of a long chat are left out so that the rest fits a budget: whole turns, the oldest first."""

from collections.abc import Sequence

import msgspec

from penstock.core.snapshot import Trim

_SYSTEM = frozenset({"system", "developer"})


class Said(msgspec.Struct, frozen=True):
    """One message: its role, and its size in tokens as estimated."""

    role: str
    tokens: int


class Trimmed(msgspec.Struct, frozen=True, kw_only=True):
    """What is left: positions of the messages kept, in order, and how many turns and tokens were left out."""

    kept: tuple[int, ...]
    turns: int
    tokens: int


def trim(messages: Sequence[Said], policy: Trim) -> Trimmed:
    """What `policy` keeps of `messages`.

    A turn is a user's message (with those that follow it at once from users) and all that came of it until the next:
    answers, tool calls and their results stay together or go together. Messages before the first turn that are not the
    system's (an opening line of the assistant) go with it. Whole turns are dropped, the oldest first, until what is left
    fits; the last `keep_last` turns stay even if they do not fit.
    """
    fixed, turns = _turns(messages, keep_system=policy.keep_system)
    total = sum(message.tokens for message in messages)
    sizes = [sum(messages[at].tokens for at in turn) for turn in turns]
    dropped = spared = 0
    while total - spared > policy.budget_tokens and len(turns) - dropped > policy.keep_last:
        spared += sizes[dropped]
        dropped += 1
    kept = sorted([*fixed, *(at for turn in turns[dropped:] for at in turn)])
    return Trimmed(kept=tuple(kept), turns=dropped, tokens=spared)


def _turns(messages: Sequence[Said], *, keep_system: bool) -> tuple[list[int], list[list[int]]]:
    fixed: list[int] = []
    turns: list[list[int]] = []
    asking = begun = False  # the last message that belongs to a turn is a user's; a user has spoken
    for at, message in enumerate(messages):
        if keep_system and message.role in _SYSTEM:
            fixed.append(at)
            continue
        user = message.role == "user"
        if not turns or (user and not asking and begun):
            turns.append([])
        turns[-1].append(at)
        asking = user
        begun = begun or user
    return fixed, turns
