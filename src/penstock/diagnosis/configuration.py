"""What is configured, and who has it: Snapshots, certificates, secrets; what control fails at, and alerts that fire."""

from collections.abc import Iterator

from penstock.core.reports import Report
from penstock.diagnosis.cause import Cause
from penstock.diagnosis.seen import Machine, Plane, Seen

QUIET_S = 30.0  # workers tell control how they are every few seconds
RENEWAL_DAYS = 14
_DAY_S = 86400.0


def judge(seen: Seen) -> Iterator[Cause]:
    """What is wrong with what is configured."""
    if seen.machine is not None:
        yield from _certificate(seen.machine, seen.at)
        yield from _secrets(seen.machine)
    if seen.plane is not None:
        for worker in seen.plane.workers:
            yield from _worker(worker, seen.plane.generation, seen.at)
        yield from _told(seen.plane)
    if seen.unasked:
        yield Cause(
            name="control_unheard",
            subject="control",
            state="wrong",
            likelihood=0.65,
            says="Control does not say what it knows: Snapshots, replicas and alerts were not looked at.",
            evidence=(seen.unasked,),
            command="see --url, --key and --data; curl -i URL/readyz",
            runbook="runbooks/target-down.md",
        )


def _worker(worker: Report, newest: int, at: float) -> Iterator[Cause]:
    who = f"{worker.worker} on {worker.host}" if worker.host else worker.worker
    quiet = at - worker.at
    if worker.refused:
        yield Cause(
            name="snapshot_refused",
            subject=who,
            state="wrong",
            likelihood=0.9,
            says=f"{who} refused the newest Snapshot whole.",
            evidence=(worker.refused, f"It serves generation {worker.generation} of {newest}."),
            command="penstock --version on both machines; then the log of the worker",
            runbook="runbooks/snapshot.md",
        )
    if worker.fault_count:
        untold = worker.fault_count - len(worker.faults)
        yield Cause(
            name="snapshot_fault",
            subject=who,
            state="wrong",
            likelihood=0.9,
            says=f"{who} cannot use {worker.fault_count} entries of its Snapshot; what depends on them is refused.",
            evidence=(
                *(f"{one.kind} {one.name}: {one.why}" for one in worker.faults),
                *((f"And {untold} more.",) if untold else ()),
            ),
            command="penstock apply -f FILE, with the entry put right",
            runbook="runbooks/snapshot.md",
        )
    if worker.generation != newest or quiet > QUIET_S:
        yield Cause(
            name="worker_stale",
            subject=who,
            state="wrong",
            likelihood=0.8 if quiet > QUIET_S else 0.5,
            says=f"{who} does not get the newest Snapshot: what was changed, revoked keys too, does not hold there.",
            evidence=(
                f"It serves generation {worker.generation} of {newest}, and was last heard of {quiet:.0f} s ago.",
            ),
            command=f"tail DATA/logs/{worker.worker}.log; can it reach control?",
            runbook="runbooks/snapshot.md",
        )


def _told(plane: Plane) -> Iterator[Cause]:
    if not plane.workers:
        yield Cause(
            name="worker_stale",
            subject="gateways",
            state="wrong",
            likelihood=0.6,
            says="No gateway has told control which Snapshot it has.",
            command="penstock gateway --control-url URL",
            runbook="runbooks/snapshot.md",
        )
    for one in plane.conditions:
        yield Cause(
            name="condition_failing",
            subject=one.subject,
            state="wrong",
            likelihood=0.55,
            says=f"Control fails at {one.subject}, {one.failures} times in a row.",
            evidence=(one.message,),
            command="tail DATA/logs/control.log",
        )
    for alert in plane.alerts:
        yield Cause(
            name="alert_firing",
            subject=alert.name,
            state="warning",
            likelihood=0.2,
            says=f"The alert {alert.name} fires.",
            evidence=(alert.summary,) if alert.summary else (),
            command="penstock alerts list --state firing",
            runbook=alert.runbook.removeprefix("docs/"),
        )


def _certificate(machine: Machine, at: float) -> Iterator[Cause]:
    if not machine.certificate:
        return
    days = (machine.certificate - at) / _DAY_S
    if days <= 0:
        yield Cause(
            name="certificate_expired",
            subject="gateway certificate",
            state="wrong",
            likelihood=0.96,
            says="The gateway's certificate has ended: clients refuse to speak to it.",
            evidence=(f"It ended {-days:.1f} days ago.",),
            command="put a new one at gateway.tls_certificate; it is taken as soon as it is there",
            runbook="runbooks/certificate.md",
        )
    elif days <= RENEWAL_DAYS:
        yield Cause(
            name="certificate_ending",
            subject="gateway certificate",
            state="warning",
            likelihood=0.3,
            says=f"The gateway's certificate ends in {days:.0f} days.",
            command="put a new one at gateway.tls_certificate; it is taken as soon as it is there",
            runbook="runbooks/certificate.md",
        )


def _secrets(machine: Machine) -> Iterator[Cause]:
    for path in machine.readable_secrets:
        yield Cause(
            name="secret_readable",
            subject=path,
            state="warning",
            likelihood=0.15,
            says=f"{path} can be read by others than its owner.",
            command=f"chmod 600 {path}",
        )
