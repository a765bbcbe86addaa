import asyncio
import os
import signal
import sys

import msgspec
import pytest

from penstock.supervisor import vigil
from penstock.supervisor.keeper import Keeper
from penstock.supervisor.logs import Logs
from penstock.supervisor.procfs import start_ticks
from penstock.supervisor.records import Records
from penstock.supervisor.values import ProcessSpec
from tests.supervisor.conftest import handle_of, staying, until


def pid_of(keeper: Keeper, name: str) -> int:
    status = keeper.status(name)
    return 0 if status is None else status.pid


async def test_a_kept_process_is_started_once_and_recorded(keeper: Keeper, records: Records) -> None:
    first = keeper.keep(staying("a"))
    assert keeper.keep(staying("a")).pid == first.pid
    record = records.read("a")
    assert record is not None
    assert (record.pid, record.started) == (first.pid, start_ticks(first.pid))


async def test_a_killed_process_is_back_and_counted(keeper: Keeper, logs: Logs) -> None:
    keeper.keep(staying("a"))
    before = pid_of(keeper, "a")
    await until(lambda: logs.last_line("a") == "up")
    handle_of(keeper, "a").send(signal.SIGKILL)
    await until(lambda: pid_of(keeper, "a") not in {0, before})
    status = keeper.status("a")
    assert status is not None
    assert (status.restarts, status.last_exit, status.state) == (1, "killed by SIGKILL", "running")


async def test_a_crash_loop_is_slowed_down_and_its_last_sentence_shown(keeper: Keeper) -> None:
    keeper.keep(staying("a", "import sys; sys.exit('the port is in use')"))

    def failed() -> bool:
        status = keeper.status("a")
        return status is not None and status.state == "failed"

    await until(failed)
    status = keeper.status("a")
    assert status is not None
    assert status.last_exit == "exit status 1: the port is in use"
    assert status.restarts >= 4


async def test_a_program_that_is_not_there_is_no_end_of_the_keeper(keeper: Keeper) -> None:
    keeper.keep(msgspec.structs.replace(staying("a"), argv=("/nowhere/at/all",)))
    status = keeper.status("a")
    assert status is not None
    assert "No such file" in status.last_exit


async def test_release_asks_first(keeper: Keeper, records: Records, logs: Logs) -> None:
    keeper.keep(staying("a"))
    await until(lambda: logs.last_line("a") == "up")
    pid = pid_of(keeper, "a")
    await keeper.release("a", 30.0)
    assert start_ticks(pid) is None
    assert records.read("a") is None
    assert keeper.status("a") is None


async def test_release_does_not_wait_for_ever(keeper: Keeper, logs: Logs) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    keeper.keep(staying("a", deaf))
    await until(lambda: logs.last_line("a") == "up")
    pid = pid_of(keeper, "a")
    await keeper.release("a", 0.1)
    assert start_ticks(pid) is None


async def test_the_next_keeper_adopts_what_lives(records: Records, logs: Logs) -> None:
    first = Keeper(records, logs, {})
    first.keep(staying("a"))
    pid = pid_of(first, "a")
    first.close()
    second = Keeper(records, logs, {})
    assert second.keep(staying("a")).pid == pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: pid_of(second, "a") not in {0, pid})
    await second.release("a", 0.0)


async def test_what_was_started_but_not_written_down_is_found(records: Records, logs: Logs) -> None:
    first = Keeper(records, logs, {})
    first.keep(staying("lost"))
    pid = pid_of(first, "lost")
    first.close()
    record = records.read("lost")
    assert record is not None
    records.write(msgspec.structs.replace(record, pid=0, started=0))
    second = Keeper(records, logs, {})
    assert second.keep(staying("lost")).pid == pid
    await second.release("lost", 0.0)


async def test_a_pid_given_to_somebody_else_is_left_alone(keeper: Keeper, records: Records) -> None:
    keeper.keep(staying("other"))
    stranger = pid_of(keeper, "other")
    record = records.read("other")
    assert record is not None
    records.write(msgspec.structs.replace(record, spec=staying("a"), started=record.started - 1))
    status = keeper.keep(staying("a"))
    assert status.pid != stranger
    assert pid_of(keeper, "other") == stranger


async def test_other_settings_mean_another_process(records: Records, logs: Logs) -> None:
    first = Keeper(records, logs, {})
    first.keep(staying("a", environment="1"))
    pid = pid_of(first, "a")
    await until(lambda: logs.last_line("a") == "up")
    first.close()
    second = Keeper(records, logs, {})
    assert second.keep(staying("a", environment="2")).pid != pid
    # Here the old one is our child: a supervisor that was restarted leaves that to the launcher.
    os.waitpid(pid, 0)
    await second.release("a", 0.0)


async def test_a_process_with_a_port_is_starting_until_it_is_healthy(keeper: Keeper, unused_tcp_port: int) -> None:
    code = (
        "import http.server as h\n"
        "class H(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.send_header('content-length', '0'); self.end_headers()\n"
        f"h.HTTPServer(('127.0.0.1', {unused_tcp_port}), H).serve_forever()\n"
    )
    spec = msgspec.structs.replace(
        staying("a", url=f"http://127.0.0.1:{unused_tcp_port}"), argv=(sys.executable, "-I", "-c", code)
    )
    assert keeper.keep(spec).state == "starting"

    def running() -> bool:
        status = keeper.status("a")
        return status is not None and status.state == "running"

    await until(running)


async def test_engines_are_not_handed_the_master_key(records: Records, logs: Logs) -> None:
    keeper = Keeper(records, logs, {"PENSTOCK_KEYS_MASTER": "secret", "PENSTOCK_DATA": "there"})
    code = "import os, time; print(sorted(n for n in os.environ if n[:8] == 'PENSTOCK'), flush=True); time.sleep(600)"
    for kind, told in (("engine", "['PENSTOCK_DATA']"), ("control", "['PENSTOCK_DATA', 'PENSTOCK_KEYS_MASTER']")):
        keeper.keep(msgspec.structs.replace(staying(kind, code), kind=kind))
        await until(lambda kind=kind, told=told: logs.last_line(kind) == told)  # type: ignore[misc]
        await keeper.release(kind, 10.0)
    keeper.close()


_ANSWERS = (
    "import http.server, sys\n"
    "class H(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_response(200); self.send_header('content-length', '0'); self.end_headers()\n"
    "    def log_message(self, *_): pass\n"
    "print('up', flush=True)\n"
    "http.server.HTTPServer(('127.0.0.1', int(sys.argv[2])), H).serve_forever()\n"
)


def answering(name: str, port: int) -> ProcessSpec:
    spec = staying(name, _ANSWERS, port=port, url=f"http://127.0.0.1:{port}", grace_s=0.1)
    return msgspec.structs.replace(spec, argv=(*spec.argv, str(port)))


async def test_a_process_that_hangs_is_killed_and_started_again(
    records: Records, logs: Logs, unused_tcp_port: int
) -> None:
    keeper = Keeper(records, logs, {}, hang_s=0.6)
    keeper.keep(answering("a", unused_tcp_port))
    await until(lambda: state_of(keeper, "a") == "running")
    before = pid_of(keeper, "a")
    handle_of(keeper, "a").send(signal.SIGSTOP)
    await until(lambda: pid_of(keeper, "a") not in {0, before} and state_of(keeper, "a") == "running")
    status = keeper.status("a")
    assert status is not None
    assert (status.restarts, status.last_exit) == (1, "said nothing for 1 s, and was killed")
    await keeper.release("a", 0.0)


async def test_who_was_stopped_itself_takes_nobody_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def status(_url: str, timeout_s: float) -> int:
        asked.append(timeout_s)
        return 200 if len(asked) % vigil.ASKS == 0 else 0  # all but one in a row stay without an answer

    monkeypatch.setattr(vigil, "status_of", status)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(vigil.until_silent("http://nowhere", 0.012), 0.5)
    assert len(asked) > 2 * vigil.ASKS
    assert set(asked) == {0.002}


async def test_what_starts_may_take_its_time_and_what_drains_is_left_alone(
    records: Records, logs: Logs, unused_tcp_port: int
) -> None:
    keeper = Keeper(records, logs, {}, hang_s=0.1)
    keeper.keep(staying("slow", url=f"http://127.0.0.1:{unused_tcp_port}"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await until(lambda: keeper.status("slow").restarts)  # type: ignore[union-attr]
    assert state_of(keeper, "slow") == "starting"
    await keeper.release("slow", 0.0)


def state_of(keeper: Keeper, name: str) -> str:
    status = keeper.status(name)
    return "" if status is None else status.state
