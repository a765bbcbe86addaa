"""The hub's client over real sockets: revisions resolved, fetches that go on where they broke off, bytes that are checked, and what it says where it is not let in."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.cli.models.hub import Hub, HubFile, Revision, parse_source
from penstock.core.errors import BadRequest, Damaged, Forbidden, NotFound, PenstockError, RateLimited, Unavailable
from tests.cli.hub_server import FakeHub, Repo

WEIGHTS = bytes(range(256)) * 8000
FILES = {"config.json": b'{"model_type": "gpt2"}', "model.safetensors": WEIGHTS}


@pytest.fixture
def server() -> Iterator[FakeHub]:
    with FakeHub().running() as running:
        running.repos["org/model"] = Repo(FILES, card={"license": "mit"})
        yield running


def client(server: FakeHub, token: str = "") -> Hub:
    return Hub({"HF_ENDPOINT": server.url, "HF_TOKEN": token}, pause=lambda _s: None)


def revision_of(server: FakeHub, name: str = "org/model", token: str = "") -> tuple[Hub, Revision, HubFile]:
    hub = client(server, token)
    found = hub.revision(parse_source(f"hf:{name}"))
    return hub, found, next(file for file in found.files if file.path == "model.safetensors")


def test_sources_are_read() -> None:
    assert parse_source("hf:org/name").revision == "main"
    assert parse_source("hf:org/name@refs/pr/3").revision == "refs/pr/3"
    assert str(parse_source("hf:gpt2@v1")) == "hf:gpt2@v1"
    for wrong in ("org/name", "hf:", "hf:a/b/c", "hf:../etc", "hf:org/na..me", "hf:org/name@", "hf:org/na me"):
        with pytest.raises(BadRequest, match="hf:ORG/NAME"):
            parse_source(wrong)


def test_a_revision_is_resolved_to_a_commit(server: FakeHub) -> None:
    commit = server.repos["org/model"].commit
    for name in ("main", "refs/pr/1", commit):
        with client(server) as hub:
            found = hub.revision(parse_source(f"hf:org/model@{name}"))
        assert (found.commit, found.card) == (commit, {"license": "mit"})
        assert {file.path: (file.size, bool(file.sha256), bool(file.sha1)) for file in found.files} == {
            "config.json": (len(FILES["config.json"]), False, True),
            "model.safetensors": (len(WEIGHTS), True, False),
        }


def test_files_come_whole_and_the_token_stays_with_the_hub(server: FakeHub, tmp_path: Path) -> None:
    hub, found, _ = revision_of(server, token="hf_known")
    seen: list[int] = []
    for file in found.files:
        digest = hub.fetch(found, file, tmp_path / file.path, seen.append)
        assert (tmp_path / file.path).read_bytes() == FILES[file.path]
        assert digest == f"sha256:{hashlib.sha256(FILES[file.path]).hexdigest()}"
    assert seen[-1] == len(WEIGHTS)
    assert {token for _, _, token in server.asked} == {"Bearer hf_known"}
    assert [token for _, _, token in server.stored] == [""]
    before = len(server.asked)
    for file in found.files:  # what lies there is checked, and not fetched again
        hub.fetch(found, file, tmp_path / file.path, seen.append)
    assert len(server.asked) == before


def test_a_fetch_goes_on_where_it_broke_off(server: FakeHub, tmp_path: Path) -> None:
    hub, found, file = revision_of(server)
    server.cut_after = [700_000, 300_000]
    hub.fetch(found, file, tmp_path / "w", lambda _n: None)
    assert (tmp_path / "w").read_bytes() == WEIGHTS
    begins = [int(asked.removeprefix("bytes=").removesuffix("-") or 0) for _, asked, _ in server.stored]
    assert begins[0] == 0
    assert 0 < begins[1] <= 700_000
    assert begins[1] < begins[2] <= 1_000_000
    assert len(begins) == 3


def test_another_process_goes_on_with_what_lies_there(server: FakeHub, tmp_path: Path) -> None:
    hub, found, file = revision_of(server)
    (tmp_path / "w.part").write_bytes(WEIGHTS[:1_000_000])
    hub.fetch(found, file, tmp_path / "w", lambda _n: None)
    assert [asked for _, asked, _ in server.stored] == ["bytes=1000000-"]
    assert (tmp_path / "w").read_bytes() == WEIGHTS
    assert not (tmp_path / "w.part").exists()


def test_a_hub_without_ranges_begins_anew(server: FakeHub, tmp_path: Path) -> None:
    hub, found, file = revision_of(server)
    server.no_ranges = True
    (tmp_path / "w.part").write_bytes(WEIGHTS[:1000])
    hub.fetch(found, file, tmp_path / "w", lambda _n: None)
    assert (tmp_path / "w").read_bytes() == WEIGHTS


def test_other_bytes_are_fetched_once_more_and_then_refused(server: FakeHub, tmp_path: Path) -> None:
    hub, found, file = revision_of(server)
    small = next(one for one in found.files if one.path == "config.json")
    server.lie = 1
    hub.fetch(found, file, tmp_path / "w", lambda _n: None)
    assert (tmp_path / "w").read_bytes() == WEIGHTS
    for one in (file, small):
        server.lie = 2
        with pytest.raises(Damaged, match="arrived twice with other bytes"):
            hub.fetch(found, one, tmp_path / f"other-{one.path}", lambda _n: None)
        assert not list(tmp_path.glob(f"other-{one.path}*"))
    (tmp_path / "w").write_bytes(b"x" * len(WEIGHTS))  # damaged on the disk: fetched anew
    hub.fetch(found, file, tmp_path / "w", lambda _n: None)
    assert (tmp_path / "w").read_bytes() == WEIGHTS


def test_a_hub_that_has_moved_on_is_noticed(server: FakeHub, tmp_path: Path) -> None:
    hub, found, file = revision_of(server)
    server.repos["org/model"].files = {**FILES, "model.safetensors": bytes(len(WEIGHTS))}
    with pytest.raises(Damaged, match="and told of"):
        hub.fetch(found, file, tmp_path / "w", lambda _n: None)


def test_failures_of_the_moment_are_tried_again(server: FakeHub) -> None:
    server.statuses = [503, 429, 502]
    hub, found, _ = revision_of(server)
    assert found.commit
    server.statuses = [429] * 5
    with pytest.raises(RateLimited, match="asks us to wait"):
        hub.revision(found.source)
    server.statuses = [500] * 5
    with pytest.raises(Unavailable, match="answers 500"):
        hub.revision(found.source)


def test_it_says_what_is_private_gated_or_not_there(server: FakeHub, tmp_path: Path) -> None:
    server.repos["org/secret"] = Repo(FILES, access="private")
    server.repos["org/gate"] = Repo(FILES, access="gated")

    def refused(kind: type[PenstockError], source: str, token: str = "") -> PenstockError:
        with pytest.raises(kind) as raised, client(server, token) as hub:
            found = hub.revision(parse_source(source))
            hub.fetch(found, found.files[0], tmp_path / "x", lambda _n: None)
        return raised.value

    missing = refused(NotFound, "hf:org/secret")
    assert "no HF_TOKEN was shown" in missing.message
    assert "HF_TOKEN" in (missing.hint or "")
    assert "HF_TOKEN was shown" in refused(NotFound, "hf:org/secret", "hf_stranger").message
    assert refused(NotFound, "hf:org/nothing").code == "model_not_found"
    assert refused(NotFound, "hf:org/model@v9").code == "revision_not_found"
    gated = refused(Forbidden, "hf:org/gate", "hf_known")
    assert gated.code == "gated_model"
    assert f"{server.url}/org/gate" in (gated.hint or "")
    assert "no HF_TOKEN was shown" in refused(Forbidden, "hf:org/gate").message
    for name, token in (("org/secret", "hf_known"), ("org/gate", "hf_friend")):
        hub, found, file = revision_of(server, name, token)
        hub.fetch(found, file, tmp_path / name.replace("/", "-"), lambda _n: None)


def test_what_is_no_hub_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="HF_ENDPOINT"):
        Hub({"HF_ENDPOINT": "ftp://x"})
    with (
        Hub({"HF_ENDPOINT": "http://127.0.0.1:1"}, pause=lambda _s: None) as hub,
        pytest.raises(Unavailable, match="cannot be reached"),
    ):
        hub.revision(parse_source("hf:org/model"))
