"""The way of records: disks, journals, the shipper's sinks."""

from collections.abc import Iterator

from penstock.diagnosis.cause import Cause
from penstock.diagnosis.seen import Disk, Machine, Reader, Seen

FULL_BYTES = 16 << 20  # less than this free: writes fail now or in a moment
LOW_BYTES = 1 << 30
LAG_BYTES = 4 << 20
_NEAR = 0.98  # of the journal's bound


def judge(seen: Seen) -> Iterator[Cause]:
    """What is wrong with disks, journals and sinks."""
    machine = seen.machine
    if machine is None:
        return
    for disk in machine.disks:
        yield from _disk(disk)
    yield from _journals(machine)
    for reader in machine.readers:
        yield from _reader(reader, machine)


def _disk(disk: Disk) -> Iterator[Cause]:
    free = f"{size(disk.free)} of {size(disk.total)} free at {disk.path}."
    if disk.free < min(FULL_BYTES, disk.total // 20):
        yield Cause(
            name="disk_full",
            subject=disk.path,
            state="wrong",
            likelihood=0.96,
            says=f"The disk of {disk.path} is full.",
            evidence=(free,),
            command=f"df -h {disk.path}; du -xsh {disk.path}/*",
            runbook="runbooks/journal-loss.md",
        )
    elif disk.free < min(LOW_BYTES, disk.total // 10):
        yield Cause(
            name="disk_low",
            subject=disk.path,
            state="warning",
            likelihood=0.3,
            says=f"The disk of {disk.path} will be full soon.",
            evidence=(free,),
            command=f"du -xsh {disk.path}/*",
            runbook="runbooks/journal-loss.md",
        )


def _journals(machine: Machine) -> Iterator[Cause]:
    for one in machine.journals:
        lost = f"{one.lost} records of {one.worker} are lost since it started; {one.failures} writes failed."
        at_bound = one.bound > 0 and one.bytes >= _NEAR * one.bound
        if at_bound:
            yield Cause(
                name="journal_bound",
                subject=one.worker,
                state="wrong" if one.lost else "warning",
                likelihood=0.88 if one.lost else 0.5,
                says=f"The journal of {one.worker} has come to its bound on the disk"
                + (", and records are lost." if one.lost else "."),
                evidence=(
                    f"{size(one.bytes)} of {size(one.bound)} (gateway.journal_disk_bytes).",
                    *((lost,) if one.lost else ()),
                ),
                command="penstock journal stats; raise PENSTOCK_GATEWAY_JOURNAL_DISK_BYTES, or bring back the sink that lags",
                runbook="runbooks/journal-loss.md",
            )
        if one.lost:
            yield Cause(
                name="journal_losing",
                subject=one.worker,
                state="wrong" if one.losing else "warning",
                likelihood=0.75 if one.losing else 0.2,
                says=f"The journal of {one.worker} "
                + (
                    "cannot be written."
                    if one.losing
                    else "could not be written for some time; now it can, or nobody asks."
                ),
                evidence=(lost, *((f"{one.losing} of them within the last second.",) if one.losing else ())),
                command="penstock journal verify; df -h",
                runbook="runbooks/journal-loss.md",
            )


def _reader(reader: Reader, machine: Machine) -> Iterator[Cause]:
    setting = machine.sinks.get(reader.name, "ship.control_url")
    behind = f"{size(reader.lag_bytes)} of journal wait for it."
    if reader.problem:
        yield Cause(
            name="sink_failing",
            subject=reader.name,
            state="wrong",
            likelihood=0.85,
            says=f"The sink {reader.name} takes nothing.",
            evidence=(reader.problem, behind),
            command=f"see that what {setting} names answers; the reader goes on by itself",
            runbook="runbooks/sink-lag.md",
        )
    elif reader.lag_bytes > LAG_BYTES:
        yield Cause(
            name="sink_lagging",
            subject=reader.name,
            state="warning",
            likelihood=0.4,
            says=f"The reader {reader.name} is behind.",
            evidence=(behind,),
            command=f"see whether what {setting} names is slow",
            runbook="runbooks/sink-lag.md",
        )
    if reader.dead_letters:
        yield Cause(
            name="dead_letters",
            subject=reader.name,
            state="warning",
            likelihood=0.35,
            says=f"The sink {reader.name} refused {reader.dead_letters} records for good.",
            evidence=(f"They lie in {machine.data}/dead-letters/{reader.name}.ndjson with the reason.",),
            command=f"tail -1 {machine.data}/dead-letters/{reader.name}.ndjson",
            runbook="runbooks/sink-lag.md",
        )


def size(count: int) -> str:
    """Bytes with a unit."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
