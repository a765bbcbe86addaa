"""A copied data folder does not go as its original: it gets ids of its own, or its start is refused with the command to run."""

import shutil
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from penstock.cli.main import cli
from penstock.core.errors import Conflict
from penstock.journal.key_exchange import host_of
from penstock.journal.names import journal_name
from penstock.supervisor import place
from penstock.supervisor.folder import DataFolder
from penstock.supervisor.place import Place, judge_place, read_place, settle


@pytest.fixture
def lived(tmp_path: Path) -> Path:
    """A folder in which a worker has written and which has keys."""
    root = tmp_path / "data"
    DataFolder(root).prepare()
    (root / "journal" / "gateway-0").mkdir()
    journal_name(root / "journal" / "gateway-0")
    (root / "journal" / "gateway-0" / "0001.journal").write_bytes(b"records")
    (root / "keys").mkdir()
    host_of(root / "keys")
    (root / "keys" / "exchange.json").write_text("{}")
    return root


def identity(root: Path) -> tuple[str, str]:
    (root / "journal" / "gateway-0").mkdir(exist_ok=True)
    return journal_name(root / "journal" / "gateway-0"), host_of(root / "keys")


def test_a_copy_beside_its_original_goes_on_as_a_folder_of_its_own(
    lived: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = identity(lived)
    copy = tmp_path / "copy"
    shutil.copytree(lived, copy)
    with caplog.at_level("INFO", "penstock.supervisor"):
        DataFolder(copy).prepare()
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert f"{copy} is a copy of {lived}" in record.getMessage()
    mine = identity(copy)
    assert not set(mine) & set(before)
    [aside] = (copy / place.ASIDE).iterdir()
    assert (aside / "0001.journal").read_bytes() == b"records"
    assert not (copy / "keys" / "exchange.json").exists()
    assert identity(lived) == before
    caplog.clear()
    for root in (copy, lived):
        DataFolder(root).prepare()
    assert (identity(copy), identity(lived), caplog.records) == (mine, before, [])


def test_a_folder_that_was_moved_is_what_it_was(lived: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = identity(lived)
    shutil.copytree(lived, tmp_path / "other-disk")  # another inode, as on another disk
    shutil.rmtree(lived)
    with caplog.at_level("INFO", "penstock.supervisor"):
        settle(tmp_path / "other-disk")
    assert f"was at {lived} and is at {tmp_path / 'other-disk'} now" in caplog.text
    assert identity(tmp_path / "other-disk") == before
    (tmp_path / "other-disk").rename(lived)
    settle(lived)
    assert identity(lived) == before


def test_on_another_machine_people_are_asked(lived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity(lived)
    known = read_place(lived)
    assert known is not None
    (lived / "place.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(known, machine="one machine")))
    other = tmp_path / "machine-id"
    other.write_text("another machine\n")
    monkeypatch.setattr(place, "_MACHINE", (other,))
    with pytest.raises(Conflict, match="last used on another machine") as refused:
        DataFolder(lived).prepare()
    assert refused.value.code == "folder_elsewhere"
    assert f"penstock folder moved --data {lived}" in str(refused.value.hint)
    run = CliRunner()
    moved = run.invoke(cli, ["folder", "moved", "--data", str(lived), "--json"])
    assert moved.exit_code == 0, moved.output
    assert msgspec.json.decode(moved.output)["machine"] == "another machine"
    DataFolder(lived).prepare()
    assert identity(lived) == before
    copied = run.invoke(cli, ["folder", "copied", "--data", str(lived), "--json"])
    assert copied.exit_code == 0, copied.output
    assert Path(msgspec.json.decode(copied.output)["aside"]).is_dir()
    assert not set(identity(lived)) & set(before)
    shown = run.invoke(cli, ["folder", "show", "--data", str(lived)])
    assert str(lived) in shown.output


def test_nothing_is_renewed_under_what_runs(lived: Path) -> None:
    folder = DataFolder(lived)
    with folder.lock(folder.lock_file):
        refused = CliRunner().invoke(cli, ["folder", "copied", "--data", str(lived)])
    assert refused.exit_code != 0
    assert read_place(lived) is not None


@pytest.mark.parametrize(
    ("machine", "path", "inode", "there", "verdict"),
    [
        ("m", "/data", 7, False, "same"),
        ("m", "/moved", 7, False, "moved"),
        ("m", "/data", 8, False, "moved"),
        ("m", "/copy", 8, True, "copied"),
        ("other", "/data", 7, False, "unknown"),
        ("other", "/copy", 8, True, "copied"),
        ("", "/data", 7, False, "same"),
    ],
)
def test_what_became_of_a_folder(machine: str, path: str, inode: int, there: bool, verdict: str) -> None:
    recorded = Place(id="i", machine="m", path="/data", inode=7)
    now = Place(id="i", machine=machine, path=path, inode=inode)
    assert judge_place(recorded, now, original_there=there) == verdict
