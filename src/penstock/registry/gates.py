"""Gates: what an environment asks of a version before it runs there, and whether it is given. Pure: evidence in, outcomes in words out."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from penstock.core.digests import sha256_digest
from penstock.registry.comparison import ItemResult, compare_suite

GateState = Literal["passed", "failed", "missing"]
DAY_S = 86400.0


class SuiteGate(msgspec.Struct, frozen=True, kw_only=True):
    """A suite that a version must answer no worse than what runs now.

    Attributes:
        suite: its name, or NAME@sha256:...
        models: that it is for; None: all.
        margin: how much lower the share of right answers may be.
        slice_margin: the same of each slice in `slices`.
        measure_margin: how much higher perplexity and latency may be, as a share of the incumbent's.
        at_least: what the lower end of the share's own interval must reach; None: nothing, except that without an incumbent nothing is judged.
        chance: below it canaries' ranks are taken for memory.
    """

    suite: str
    models: tuple[str, ...] | None = None
    margin: float = 0.02
    slice_margin: float = 0.1
    measure_margin: float = 0.1
    confidence: float = 0.95
    at_least: float | None = None
    slices: tuple[str, ...] = ()
    chance: float = 0.001
    seed: int = 1
    judge: str | None = None
    valid_days: float = 30.0


class SmokeGate(msgspec.Struct, frozen=True, kw_only=True):
    """The engine loads the build and answers each of `prompts` with some text."""

    prompts: tuple[str, ...] = ("Hello",)
    valid_days: float = 30.0


class SignatureGate(msgspec.Struct, frozen=True, kw_only=True):
    """Who has to have signed: one of `signers`, or anybody who is not revoked if there are none."""

    signers: tuple[str, ...] = ()


class ApprovalGate(msgspec.Struct, frozen=True, kw_only=True):
    """How many must have approved; nobody who pushed the version, if `by_other`."""

    count: int = 1
    by_other: bool = True
    valid_days: float = 7.0


class GatePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment asks for. `models`: whom it is for; None: all."""

    models: tuple[str, ...] | None = None
    scan: bool = False
    signature: SignatureGate | None = None
    smoke: SmokeGate | None = None
    card: bool = False
    suites: tuple[SuiteGate, ...] = ()
    approval: ApprovalGate | None = None

    def suites_of(self, model: str) -> tuple[SuiteGate, ...]:
        """Those that are for `model`."""
        return tuple(gate for gate in self.suites if gate.models is None or model in gate.models)

    @property
    def hash(self) -> str:
        """What names the policy: the digest of it as JSON."""
        return sha256_digest(msgspec.json.encode(self, order="sorted"))


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be let in.

    Attributes:
        reference: NAME:LABEL.
        pushed_by: what whoever pushed it was called, for people.
        pusher: their principal's id; "": they had none.
        pushed_with: id of the key that they had.
    """

    reference: str
    digest: str
    environment: str
    pushed_by: str
    pusher: str = ""
    pushed_with: str = ""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation that counts for a gate.

    Attributes:
        id: of it.
        finished_at: Unix seconds.
        passed: of a scan or a smoke test; of a suite only its items speak.
        words: what it found, for people.
        items: of a suite.
        slices: which slices the suite has.
    """

    id: str
    finished_at: float
    passed: bool = True
    words: str = ""
    items: tuple[ItemResult, ...] = ()


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody's word for a version in an environment. `at` is in Unix seconds.

    `person` is the id of who gave it, whatever they are called and whichever keys they have; "": a key that belongs to nobody.
    """

    principal: str
    person: str
    at: float
    disabled: bool = False  # the principal is, since
    policy_hash: str
    results_hash: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a version, and of the one that it is to replace.

    Attributes:
        scan, smoke: the newest that count.
        suites: of the candidate, by the gate's `suite`; `incumbents` of what is live.
        under_way: evaluations that run or wait: `scan`, `smoke` or a suite's name -> how far in words.
        incumbent: NAME:LABEL of what is live and is to be replaced; "" if nothing is.
        signers: who has signed and is not revoked.
        card_missing: what its card does not say.
        approvals: that nobody has taken back.
    """

    scan: Found | None = None
    smoke: Found | None = None
    suites: dict[str, Found] = {}
    incumbents: dict[str, Found] = {}
    under_way: dict[str, str] = {}
    incumbent: str = ""
    signers: tuple[str, ...] = ()
    card_missing: tuple[str, ...] = ()
    approvals: tuple[Approval, ...] = ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one gate.

    Attributes:
        gate: scan, signature, smoke, card, `suite NAME`, approval.
        words: why, with the figures.
        command: what would supply what is missing; "" where there is nothing to supply.
        figures: the comparisons behind it.
        evidence: ids of the evaluations that it rests on.
    """

    gate: str
    state: GateState
    words: str
    command: str = ""
    figures: tuple[dict[str, float | int | str | None], ...] = ()
    evidence: tuple[str, ...] = ()


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """All gates of an environment for one version."""

    policy_hash: str
    results_hash: str  # of all but approvals: what an approval is bound to
    outcomes: tuple[Outcome, ...] = ()

    @property
    def open(self) -> tuple[Outcome, ...]:
        """Those that are not passed."""
        return tuple(one for one in self.outcomes if one.state != "passed")


def judge_gates(policy: GatePolicy, subject: Subject, evidence: Evidence, now: float) -> Judgement:
    """Every gate of `policy`, in the order in which people supply them; none where the policy is not for the subject's model.

    Args:
        policy: of the environment.
        subject: the version.
        evidence: what is known. What is bound to another digest, build, suite, setting or engine must have been left out.
        now: Unix seconds; what is older than the policy allows counts as missing.
    """
    model = subject.reference.partition(":")[0]
    if policy.models is not None and model not in policy.models:
        return Judgement(policy_hash=policy.hash, results_hash=_hash(()))
    outcomes: list[Outcome] = []
    if policy.scan:
        outcomes.append(_checked("scan", evidence.scan, subject, evidence, None, now))
    if policy.signature is not None:
        outcomes.append(_signature(policy.signature, subject, evidence))
    if policy.smoke is not None:
        outcomes.append(_checked("smoke", evidence.smoke, subject, evidence, policy.smoke.valid_days, now))
    if policy.card:
        outcomes.append(_card(subject, evidence))
    outcomes += [_suite(gate, subject, evidence, now) for gate in policy.suites_of(model)]
    results = _hash(outcomes)
    if policy.approval is not None:
        outcomes.append(_approval(policy.approval, policy.hash, results, subject, evidence, now))
    return Judgement(policy_hash=policy.hash, results_hash=results, outcomes=tuple(outcomes))


def refusal(refused: Sequence[Outcome], subject: Subject) -> str:
    """Why the version is not let in, by each gate that refused it, with the command that would supply what it lacks."""
    lines = [f"{one.gate}: {one.words}" + (f" [{one.command}]" if one.command else "") for one in refused]
    return f"{subject.reference} does not pass the gates of {subject.environment}. " + " ".join(lines)


def _hash(outcomes: Sequence[Outcome]) -> str:
    return sha256_digest(msgspec.json.encode([(one.gate, one.state, one.figures, one.evidence) for one in outcomes]))


def _run(subject: Subject) -> str:
    return f"penstock gates run {subject.reference} --for {subject.environment}"


def _checked(
    gate: str, found: Found | None, subject: Subject, evidence: Evidence, valid_days: float | None, now: float
) -> Outcome:
    if found is None or (valid_days is not None and found.finished_at < now - valid_days * DAY_S):
        said = evidence.under_way.get(gate) or ("It was not done." if found is None else "It is out of date.")
        return Outcome(gate=gate, state="missing", words=said, command=_run(subject))
    return Outcome(gate=gate, state="passed" if found.passed else "failed", words=found.words, evidence=(found.id,))


def _signature(gate: SignatureGate, subject: Subject, evidence: Evidence) -> Outcome:
    wanted = [one for one in evidence.signers if not gate.signers or one in gate.signers]
    if wanted:
        return Outcome(gate="signature", state="passed", words=f"Signed by {', '.join(wanted)}.")
    who = " or ".join(gate.signers) or "anybody"
    signer = gate.signers[0] if gate.signers else "NAME"
    return Outcome(
        gate="signature",
        state="missing",
        words=f"It is not signed by {who}.",
        command=f"penstock models sign {subject.reference} --signer {signer}",
    )


def _card(subject: Subject, evidence: Evidence) -> Outcome:
    if not evidence.card_missing:
        return Outcome(gate="card", state="passed", words="The card says all that it should.")
    return Outcome(
        gate="card",
        state="missing",
        words=f"The card lacks {', '.join(evidence.card_missing)}.",
        command=f"penstock models card {subject.reference}",
    )


def _suite(gate: SuiteGate, subject: Subject, evidence: Evidence, now: float) -> Outcome:
    name = f"suite {gate.suite}"
    found, other = evidence.suites.get(gate.suite), evidence.incumbents.get(gate.suite)
    oldest = now - gate.valid_days * DAY_S
    fresh = [one for one in (found, other) if one is not None and one.finished_at >= oldest]
    if found is None or found not in fresh:
        said = evidence.under_way.get(gate.suite) or (
            f"{subject.reference} was not evaluated." if found is None else "Its evaluation is out of date."
        )
        return Outcome(gate=name, state="missing", words=said, command=_run(subject))
    if evidence.incumbent and (other is None or other not in fresh):
        said = f"{evidence.incumbent}, which is live, was not evaluated lately by the same suite, seed and engine."
        return Outcome(
            gate=name,
            state="missing",
            words=evidence.under_way.get(f"{gate.suite} incumbent") or said,
            command=_run(subject),
        )
    told = compare_suite(
        found.items,
        other.items if other is not None else None,
        incumbent_name=evidence.incumbent,
        margin=gate.margin,
        slice_margin=gate.slice_margin,
        measure_margin=gate.measure_margin,
        confidence=gate.confidence,
        at_least=gate.at_least,
        slices=gate.slices,
        chance=gate.chance,
    )
    return Outcome(
        gate=name,
        state="passed" if told.passed else "failed",
        words=told.words,
        figures=told.figures,
        evidence=tuple(one.id for one in (found, other) if one is not None),
    )


def _approval(
    gate: ApprovalGate, policy_hash: str, results_hash: str, subject: Subject, evidence: Evidence, now: float
) -> Outcome:
    if gate.by_other and not subject.pusher:
        said, command = nobody_pushed(subject)
        return Outcome(gate="approval", state="missing", words=said, command=command)
    command = f"penstock approve {subject.reference} --for {subject.environment}"
    counted: dict[str, str] = {}
    void: list[str] = []
    for one in evidence.approvals:
        if not one.person:
            void.append(f"that of {one.principal} is of a key that belongs to nobody")
        elif one.disabled:
            void.append(f"{one.principal} is disabled")
        elif gate.by_other and one.person == subject.pusher:
            void.append(f"{one.principal} pushed it")
        elif one.at < now - gate.valid_days * DAY_S:
            void.append(f"that of {one.principal} is out of date")
        elif one.policy_hash != policy_hash:
            void.append(f"that of {one.principal} was under another policy")
        elif one.results_hash != results_hash:
            void.append(f"that of {one.principal} was for other results")
        else:
            counted[one.person] = one.principal
    if len(counted) >= gate.count:
        return Outcome(gate="approval", state="passed", words=f"Approved by {', '.join(sorted(counted.values()))}.")
    missing = gate.count - len(counted)
    who = f"somebody other than {subject.pushed_by}" if gate.by_other else "somebody"
    said = f"{missing} approval{'s are' if missing > 1 else ' is'} missing, by {who}"
    return Outcome(
        gate="approval", state="missing", words=said + (f" ({'; '.join(void)})." if void else "."), command=command
    )


def nobody_pushed(subject: Subject) -> tuple[str, str]:
    """Why nobody can be told to be another than who pushed the version, and the command that helps."""
    said = f"{subject.reference} was pushed with a key that belongs to no principal, so that nobody can be told to be another person"
    if not subject.pushed_with:
        return f"{said}: push it anew under another label, with a key of a principal.", ""
    command = f"penstock keys adopt {subject.pushed_with} --principal NAME"
    return f"{said}: say whose key it is.", command
