"""Processes: one that is not run, ends again and again, does not answer, or is not ready."""

from collections.abc import Iterator

from penstock.diagnosis.cause import Cause
from penstock.diagnosis.seen import Machine, Program, Seen

_AGAIN = 2  # early deaths in a row that are no accident any more
_STEADY_S = 15.0  # who has lived this long since is past them
_RUNBOOKS = {"engine": "runbooks/pool-down.md"}


def judge(seen: Seen) -> Iterator[Cause]:
    """What is wrong with processes."""
    machine = seen.machine
    if machine is None:
        return
    if machine.missing:
        yield Cause(
            name="data_folder_missing",
            subject=machine.data,
            state="wrong",
            likelihood=1.0,
            says=f"There is no data folder {machine.data}.",
            command="penstock up --data DIR  (or --data names the right one)",
        )
        return
    if machine.supervisor:
        yield Cause(
            name="supervisor_down",
            subject="supervisor",
            state="wrong",
            likelihood=0.92,
            says="The supervisor does not answer: nothing restarts what ends, no replica can be started.",
            evidence=(machine.supervisor,),
            command=f"penstock up --data {machine.data}",
            runbook="runbooks/target-down.md",
        )
    for program in machine.programs:
        yield from _program(program, machine, seen.at)
    if machine.shipper:
        yield Cause(
            name="shipper_silent",
            subject="ship",
            state="wrong",
            likelihood=0.7,
            says="The shipper does not tell how far its readers are.",
            evidence=(machine.shipper,),
            command=f"tail {machine.data}/logs/ship.log",
            runbook="runbooks/sink-lag.md",
        )


def _program(program: Program, machine: Machine, at: float) -> Iterator[Cause]:
    runbook = _RUNBOOKS.get(program.kind, "runbooks/target-down.md")
    log = f"{machine.data}/logs/{program.name}.log"
    if program.halted:
        yield Cause(
            name="process_halted",
            subject=program.name,
            state="wrong",
            likelihood=0.97,
            says=f"{program.name} is not run: its process {program.halted} is stopped.",
            evidence=(f"/proc/{program.halted}/stat says T.", *_silence(program)),
            command=f"kill -CONT {program.halted}  (kill -KILL {program.pid or program.halted} has it started anew)",
            runbook=runbook,
        )
    young = not program.pid or at - program.since < _STEADY_S
    if young and (program.streak >= _AGAIN or program.state == "failed"):
        yield Cause(
            name="process_restarting",
            subject=program.name,
            state="wrong",
            likelihood=0.95,
            says=f"{program.name} ends soon after each start.",
            evidence=(
                f"{program.streak} early ends in a row, started again {program.restarts} times.",
                f"It ended last with: {program.last_exit or 'nothing said'}.",
            ),
            command=f"tail {log}",
            runbook=runbook,
        )
    elif program.kind != "supervisor" and not program.pid:
        yield Cause(
            name="process_restarting",
            subject=program.name,
            state="wrong",
            likelihood=0.8,
            says=f"{program.name} does not run.",
            evidence=(f"It is {program.state}; its last end: {program.last_exit or 'none is known'}.",),
            command=f"tail {log}",
            runbook=runbook,
        )
    if program.status == 0 and program.pid:
        yield Cause(
            name="process_silent",
            subject=program.name,
            state="wrong",
            likelihood=0.9,
            says=f"{program.name} lives and does not answer.",
            evidence=_silence(program),
            command=f"kill -KILL {program.pid}  (the supervisor starts it anew; its log: {log})",
            runbook=runbook,
        )
    elif program.status > 0 and program.status != 200:
        yield Cause(
            name="process_not_ready",
            subject=program.name,
            state="wrong",
            likelihood=0.6,
            says=f"{program.name} says that it is not ready.",
            evidence=(f"{program.url}/readyz: {program.status} {program.complaint}".rstrip() + ".",),
            command=f"tail {log}",
            runbook=runbook,
        )


def _silence(program: Program) -> tuple[str, ...]:
    return (f"{program.url}/readyz: no answer.",) if program.status == 0 and program.url else ()
