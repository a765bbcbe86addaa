import os
from pathlib import Path

from penstock.supervisor.logs import Logs


def test_a_log_that_grew_too_long_is_moved_aside_under_its_writer(tmp_path: Path) -> None:
    logs = Logs(tmp_path, limit=100)
    descriptor = logs.open("control")
    os.write(descriptor, b"x" * 99 + b"\nlast\n")
    logs.rotate()
    os.write(descriptor, b"next\n")
    os.close(descriptor)
    assert logs.path("control").read_text() == "next\n"
    assert (tmp_path / "control.log.1").read_text().endswith("last\n")


def test_the_last_line_of_this_run_alone(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    assert logs.last_line("a") == ""
    logs.path("a").write_text("old\n")
    since = logs.size("a")
    assert logs.last_line("a", since) == ""
    logs.path("a").write_text("old\nError: new\n\n")
    assert logs.last_line("a", since) == "Error: new"
    logs.path("a").write_text("Error: new\nHint: Do otherwise.\n")
    assert logs.last_line("a") == "Error: new"
