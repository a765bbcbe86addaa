"""The command line against a real control plane in a thread: what it prints, where it finds things, how it ends."""

import hashlib
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from click.testing import CliRunner, Result

from penstock.cli.main import cli
from penstock.core.errors import Conflict
from tests.ports import free_port

PATIENCE_S = 90.0


class Control:
    """A control plane without models, on a data folder of its own."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [
                sys.executable, "-P", "-m", "penstock.cli", "control", "--empty", "--data", str(data),
                "--control-port", str(self.port),
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            assert time.monotonic() < deadline and self.process.poll() is None
            time.sleep(0.05)

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a command beside the data folder."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "penstock.cli", *words],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=self.data.parent,
            env={**os.environ, "PENSTOCK_DATA": str(self.data), "PENSTOCK_URL": self.url,
                 "XDG_CACHE_HOME": str(self.data.parent / "cache"), **environment},
        )  # fmt: skip

    def json(self, *words: str) -> Any:
        """The JSON document that a command prints."""
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    made = Control(tmp_path_factory.mktemp("cli") / "d")
    yield made
    made.process.terminate()
    assert made.process.wait(PATIENCE_S) == 0


def test_help_comes_without_importing_what_it_tells_of() -> None:
    code = "import sys; sys.argv = ['penstock', '--help']\nfrom penstock.cli.main import main\ntry: main()\nexcept SystemExit: print(sorted({m.split('.')[0] for m in sys.modules} & {'httpx', 'rich', 'sqlalchemy', 'fastapi', 'asyncio', 'numpy'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert "promote" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_what_is_unknown_is_wrong_usage(control: Control) -> None:
    done = control.run("modles")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'modles'" in done.stderr
    assert control.run("models", "show", "nothing here").returncode == 2


def test_an_unknown_setting_is_refused_by_its_name(control: Control) -> None:
    done = control.run("tenants", "list", PENSTOCK_GATEWAY_PROT="1")
    assert done.returncode == 2
    assert "prot" in done.stderr


def test_a_control_that_is_away_is_a_sentence(control: Control) -> None:
    done = control.run("tenants", "list", "--url", "http://127.0.0.1:9", "--key", "pk-x")
    assert done.returncode == 1
    assert "http://127.0.0.1:9 cannot be reached" in done.stderr
    assert "Hint: Is it running?" in done.stderr


def test_the_local_key_is_not_shown_to_others(control: Control) -> None:
    done = control.run("tenants", "list", "--url", "http://192.0.2.1:8081")
    assert done.returncode == 1
    assert "There is no key" in done.stderr


def test_a_wrong_key_is_a_sentence(control: Control) -> None:
    done = control.run("tenants", "list", "--key", "pk-wrong")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")


def test_tenants_are_made_changed_and_removed(control: Control) -> None:
    control.json("tenants", "create", "acme", "--requests-per-minute", "10", "--priority", "premium")
    control.json("tenants", "update", "acme", "--tokens-per-minute", "500", "--tokens-per-day", "90000")
    found = {one["name"]: one["spec"] for one in control.json("tenants", "list")["tenants"]}["acme"]
    assert found["priority"] == "premium"
    limits = {name: value for name, value in found["limits"].items() if value is not None}
    assert limits == {"requests_per_minute": 10, "tokens_per_minute": 500, "tokens_per_day": 90_000}
    control.json(
        "tenants", "update", "acme", "--model-limit", "support-bot:tokens_per_minute=50", "--usd-per-month", "9"
    )
    by_day = ("--model-limit", "support-bot:usd_per_day=0.5", "--model-limit", "support-bot:requests_per_day=70")
    control.json("tenants", "update", "acme", *by_day)
    found = {one["name"]: one["spec"] for one in control.json("tenants", "list")["tenants"]}["acme"]
    by_model = {name: value for name, value in found["model_limits"]["support-bot"].items() if value is not None}
    assert by_model == {"tokens_per_minute": 50, "usd_per_day": 0.5, "requests_per_day": 70}
    assert found["limits"]["usd_per_month"] == 9
    wrong = control.run("tenants", "update", "acme", "--model-limit", "support-bot:rpm=50")
    assert (wrong.returncode, "write MODEL:LIMIT=VALUE" in wrong.stderr) == (2, True)
    again = control.run("tenants", "create", "acme")
    assert again.returncode == 1
    assert "acme" in again.stderr
    assert control.run("tenants", "revoke", "acme").stdout == "Tenant acme is removed.\n"


def test_a_key_is_told_once_and_revoked_by_its_name(control: Control) -> None:
    control.json("tenants", "create", "keyed")
    told = control.json("keys", "create", "--tenant", "keyed", "--name", "laptop", "--model", "support-bot")
    assert told["key"].startswith("pk-")
    changed = control.json(
        "keys", "update", "laptop", "--concurrency", "4", "--model", "other", "--model-limit", "other:concurrency=2"
    )
    assert changed["model_limits"] == {"other": {"concurrency": 2}}
    assert (changed["limits"], changed["models"], changed["tenant"]) == ({"concurrency": 4}, ["other"], "keyed")
    listed = control.run("keys", "list", "--tenant", "keyed").stdout
    assert told["id"] in listed
    assert told["key"] not in listed
    assert control.run("keys", "revoke", "laptop").returncode == 0
    assert control.run("keys", "revoke", "laptop").returncode == 1
    assert control.json("keys", "list", "--tenant", "keyed")["keys"][0]["revoked_at"] is not None


def test_routes_and_policies_from_flags_and_files(control: Control, tmp_path: Path) -> None:
    stack = tmp_path / "pool.yaml"
    stack.write_text('kind: Pool\nname: p\nspec: {adopt: ["http://127.0.0.1:9"]}\n')
    control.json("apply", "-f", str(stack))
    rules = tmp_path / "policy.yaml"
    rules.write_text("rules: [{name: cards, detect: payment_card, do: mask}]\n")
    control.json("policies", "create", "careful", "-f", str(rules), "--capture", "masked")
    control.json("routes", "create", "mine", "--to", "p=2", "--cache", "exact", "--policy", "careful")
    control.json("routes", "update", "mine", "--cache-ttl-s", "60")
    route = {one["name"]: one["spec"] for one in control.json("routes", "list")["routes"]}["mine"]
    assert route["cache"]["mode"] == "exact"
    assert route["cache"]["ttl_s"] == 60
    assert route["to"][0]["pool"] == "p"
    assert control.run("policies", "revoke", "careful").returncode == 1  # the route needs it
    control.json("routes", "revoke", "mine")
    control.json("policies", "revoke", "careful")


def test_apply_shows_the_difference_and_then_keeps_it(control: Control, tmp_path: Path) -> None:
    stack = tmp_path / "stack.yaml"
    stack.write_text(
        "kind: Tenant\nname: applied\nspec: {weight: 2}\n---\nkind: Key\nname: k\nspec: {tenant: applied}\n"
    )
    dry = control.run("apply", "-f", str(stack), "--dry-run")
    assert "would create" in dry.stdout
    first = control.json("apply", "-f", str(stack))
    assert [step["action"] for step in first["steps"]] == ["create", "create"]
    assert any("key" in step.get("told", {}) for step in first["steps"])
    assert {step["action"] for step in control.json("apply", "-f", str(stack))["steps"]} == {"keep"}
    stack.write_text("kind: Tenant\nname: applied\nspec: {wieght: 3}\n")
    wrong = control.run("apply", "-f", str(stack))
    assert wrong.returncode == 1
    assert "wieght" in wrong.stderr


def test_a_version_is_pushed_shown_and_pulled(control: Control, tmp_path: Path) -> None:
    source = tmp_path / "model"
    (source / "sub").mkdir(parents=True)
    (source / "config.json").write_text("{}")
    (source / "README.md").write_text("# A model\n")
    (source / "sub" / "weights.bin").write_bytes(os.urandom(3_000_000))
    (source / ".git").mkdir()
    (source / ".git" / "HEAD").write_text("left out")
    meta = tmp_path / "meta.yaml"
    meta.write_text("training: {description: made up}\nmetrics: {accuracy: 0.5}\n")
    pushed = control.json("models", "push", str(source), "tiny:v0.1.0", "--meta", str(meta))
    assert control.json("models", "push", str(source), "tiny:v0.1.0", "--meta", str(meta))["digest"] == pushed["digest"]
    shown = control.json("models", "show", "tiny-v0.1.0")
    assert {entry["path"] for entry in shown["files"]} == {"config.json", "README.md", "sub/weights.bin"}
    assert shown["metadata"]["metrics"] == {"accuracy": 0.5}
    assert control.run("models", "card", "tiny:v0.1.0").stdout == "# A model\n\n"
    target = tmp_path / "pulled"
    control.json("models", "pull", f"tiny@{pushed['digest']}", str(target))
    for path in ("config.json", "README.md", "sub/weights.bin"):
        assert (
            hashlib.sha256((target / path).read_bytes()).digest()
            == hashlib.sha256((source / path).read_bytes()).digest()
        )
    (source / "config.json").write_text("{ }")
    changed = control.run("models", "push", str(source), "tiny:v0.1.0")
    assert changed.returncode == 1
    assert "tiny:v0.1.0" in changed.stderr
    based = control.json("models", "push", str(source), "tiny:v0.2.0", "--base", "tiny:v0.1.0")
    assert based["metadata"]["base"] == {"version": "tiny:v0.1.0", "digest": pushed["digest"]}
    assert [v["label"] for v in control.json("models", "list", "tiny")["versions"]] == ["v0.2.0", "v0.1.0"]
    assert "tiny" in control.run("models", "list").stdout


def test_what_is_not_there_is_not_promoted(control: Control) -> None:
    done = control.run("promote", "nobody:v1.0.0", "--to", "production")
    assert done.returncode == 1
    assert "nobody:v1.0.0" in done.stderr
    assert control.run("rollback", "nobody", "--in", "production").returncode == 1
    assert control.run("rollback", "nobody:v1", "--in", "production").returncode == 2


def test_the_size_of_an_experiment(control: Control) -> None:
    told = control.json("experiments", "power", "--minimum-effect", "0.05", "--baseline", "0.6")
    each = told["units_per_arm"]
    assert each["fixed"] < each["group_sequential"] < each["always_valid"]
    said = control.run("experiments", "power", "--minimum-effect", "0.05", "--baseline", "0.2", "--looks", "2").stdout
    assert [line.split()[-2:] for line in said.splitlines()[1:]] == [
        ["1094", "2188"],
        ["1099", "2198"],
        ["2095", "4190"],
    ]
    assert control.run("experiments", "power", "--minimum-effect", "0.05", "--looks", "0").returncode == 2
    assert control.json("experiments", "list") == {"experiments": []}
    assert control.run("experiments", "status", "nobody").returncode == 1


EXPERIMENT = """
kind: Pool
name: mock
spec: {adopt: ["http://127.0.0.1:9"]}
---
kind: Route
name: mock
spec: {to: [{pool: mock}]}
---
kind: Experiment
name: tone
spec:
  strategy: ab
  hypothesis: "it is better"
  route: mock
  holdout: {name: winter, share: 0.1}
  arms: [{name: control, pool: mock}, {name: warm, pool: mock, system: Be warm., params: {temperature: 0.5}}]
  primary: {metric: success, minimum_effect: 0.05}
"""


def test_an_experiment_is_killed_taken_away_and_put_away(control: Control, tmp_path: Path) -> None:
    path = tmp_path / "stack.yaml"
    path.write_text(EXPERIMENT.replace("0.5}}", "5}}"))
    hot = control.run("apply", "-f", str(path))
    assert hot.returncode == 1
    assert "spec.arms[1].params.temperature" in hot.stderr
    path.write_text(EXPERIMENT)
    assert control.run("apply", "-f", str(path)).returncode == 0
    assert control.json("experiments", "start", "tone")["state"] == "running"
    replayed = control.json("experiments", "replay", "tone")
    assert (replayed["equal"], replayed["records"]) == (True, 0)
    assert "Counts: equal." in control.run("experiments", "replay", "tone").stdout
    assert control.run("experiments", "kill").returncode == 2
    assert control.json("experiments", "kill", "--all", "--reason", "enough") == {"killed": ["tone"]}
    status = control.json("experiments", "status", "tone")
    assert (status["state"], status["serving"]) == ("decided", "control")
    assert status["decision"]["reasons"] == ["Killed by admin: enough."]
    exported = control.json("experiments", "export", "tone")
    assert exported["spec"]["holdout"] == {"name": "winter", "share": 0.1}
    sheet = tmp_path / "epochs.csv"
    control.json("experiments", "export", "tone", "--format", "csv", "--table", "epochs", "-o", str(sheet))
    assert sheet.read_text().splitlines()[0] == "experiment,epoch,started_at,arm,share"
    assert control.json("experiments", "archive", "tone")["state"] == "archived"
    assert control.run("experiments", "kill", "tone").returncode == 1


def test_the_journal_of_a_folder_without_one(control: Control, tmp_path: Path) -> None:
    done = control.run("journal", "stats", "--data", str(tmp_path / "nothing"))
    assert done.returncode == 1
    assert "no journal" in done.stderr


def test_doctor_says_what_does_not_run(control: Control) -> None:
    done = control.run("doctor", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert not told["healthy"]
    assert told["causes"][0]["name"] == "supervisor_down"
    assert told["seen"]["plane"]["generation"] > 0, "control was asked all the same"
    shown = control.run("doctor").stdout
    assert shown.startswith("1. wrong The supervisor does not answer")
    assert "next: penstock up" in shown
    afar = control.run("doctor", "--json", "--data", "/nowhere")
    assert json.loads(afar.stdout)["seen"]["machine"] is None, "control alone is asked where there is no data folder"


def test_a_request_that_control_does_not_know_yet_is_explained_by_the_journal(control: Control) -> None:
    from penstock.journal.spans import trace_of
    from penstock.journal.writer import JournalWriter
    from tests.journal.records import exchange, observation

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    writer = JournalWriter.open(control.data / "journal" / "w9", "w9", loop=None, clock=time.time)
    name = exchange(77).id
    writer.append(exchange(76))
    writer.append(exchange(77, model="bot", version="bot:v1", experiment="e", arm="b", propensity=0.25, trace=trace))
    writer.append(msgspec.structs.replace(observation(5), request=name))
    writer.close()
    told = control.json("explain", name)
    assert told["source"] == "journal"
    assert "There is no request" in told["control"]
    assert (told["request"]["version"], told["experiment"]["propensity"]) == ("bot:v1", 0.25)
    assert [one["name"] for one in told["phases"]][-1] == "done"
    assert [one["rating"] for one in told["observations"]] == [1.0]
    shown = control.run("explain", name).stdout
    for part in ("0af7651916cd43dd8448eb211c80319c", "probability 0.25", "ENDED AFTER", "the journal here", "a second"):
        assert part in shown, shown
    untraced = trace_of(exchange(76)).hex()  # its client traced nothing, and yet it has a trace in the sinks
    assert untraced in control.run("explain", exchange(76).id).stdout
    assert control.json("explain", exchange(76).id)["request"]["trace_id"] == untraced
    away = control.run("explain", name, "--json", PENSTOCK_URL="http://127.0.0.1:9")
    assert "cannot be reached" in json.loads(away.stdout)["control"]
    nobody = control.run("explain", exchange(99).id)
    assert nobody.returncode == 1
    assert "There is no request" in nobody.stderr


def test_requests_are_listed_by_what_is_known_of_them(control: Control) -> None:
    from penstock.journal.format import encode_frame
    from tests.journal.records import exchange

    now = time.time()
    records = [
        exchange(700 + n, at=now - 60 + n, error="odd" if n == 3 else "", outcome="error" if n == 3 else "ok")
        for n in range(6)
    ]
    body = b"".join(encode_frame(one) for one in records)
    token = next(control.data.rglob("service.token")).read_text().strip()
    told = httpx.post(
        f"{control.url}/internal/v1/ingest",
        params={"source": "elsewhere.0123456789abcdef", "segment": 1, "start": 64, "end": 64 + len(body)},
        content=body, headers={"authorization": f"Bearer {token}"}, timeout=PATIENCE_S,
    )  # fmt: skip
    assert told.status_code == 200, told.text
    first = control.json("requests", "--limit", "4", "--id", "0000070")
    assert [one["id"] for one in first["requests"]] == [one.id for one in records[:1:-1]]
    rest = control.json("requests", "--before", first["next"], "--from", str(now - 60), "--to", "2099-01-01T00:00")
    assert [one["id"] for one in rest["requests"]] == [records[1].id, records[0].id]
    assert (rest["next"], rest["through"]) == (None, "index")
    shown = control.run("requests", "--error", "odd", "--slower", "0")
    assert records[3].id in shown.stdout
    assert records[2].id not in shown.stdout
    assert control.run("requests", "--model", "nobody's").stdout.strip() == "None."
    assert control.run("requests", "--from", "yesterday").returncode == 2


def test_queries_read_the_data_folder_or_ask_control(control: Control) -> None:
    from penstock.journal.analytics.store import AnalyticsStore
    from penstock.journal.analytics.tables import Row
    from penstock.journal.format import Position
    from tests.journal.records import exchange

    missing = control.run("query", "SELECT 1")
    assert missing.returncode == 1
    assert "no analytical store" in missing.stderr
    store = AnalyticsStore(control.data / "analytics")
    store.add("w", Position(1, 64), 500, [Row("w", Position(1, n), exchange(n)) for n in range(3)], 5.0)
    store.close()
    sql = "SELECT tenant, count(*) AS requests FROM exchanges GROUP BY ALL"
    for url in (control.url, ""):  # without one, the data folder is read
        done = control.run("query", sql, "--json", PENSTOCK_URL=url)
        assert json.loads(done.stdout)["rows"] == [["acme", 3]], done.stderr
    cut = control.run("query", "SELECT id FROM exchanges", "--limit", "2", PENSTOCK_URL="")
    assert cut.stdout.count("req_") == 2
    assert "there are more" in cut.stderr
    assert "@cost" in control.run("query", "--named").stdout
    assert control.run("query").returncode == 2
    refused = control.run("query", "ATTACH '/tmp/x.db'", PENSTOCK_URL="")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "One SELECT is run" in refused.stderr


def test_subjects_are_forgotten_and_their_keys_counted(control: Control) -> None:
    from penstock.core.settings import Settings
    from penstock.journal.keyring import open_keys
    from penstock.journal.keystore import subject_of
    from penstock.journal.subjects import hash_subject

    keys = open_keys(Settings(data=str(control.data)), make=False)  # control has made them
    keys.key_of("acme", subject_of(hash_subject(keys.hash_key, "jane"), ""))
    keys.key_of("acme", "")
    told = control.json("subjects", "status")
    assert (told["living"], told["destroyed"], len(told["master"])) == (2, 0, 16)
    for words in ([], ["--user", "jane", "--everyone"]):
        done = control.run("subjects", "forget", "--tenant", "acme", "--yes", *words)
        assert done.returncode == 2
        assert "one subject" in done.stderr
    done = control.run("subjects", "forget", "--tenant", "acme", "--user", "jane", "--yes")
    assert done.returncode == 0
    assert "1 keys of acme/user/" in done.stdout
    assert "jane" not in done.stdout
    done = control.run("subjects", "forget", "--tenant", "acme", "--user", "jane", "--yes")
    assert "has no key: no content of its requests can be read" in done.stdout
    assert control.json("subjects", "forget", "--tenant", "acme", "--everyone")["keys"] == 1
    rotated = control.json("subjects", "rotate")
    assert rotated["from"] == told["master"]
    after = control.json("subjects", "status")
    assert (after["living"], after["destroyed"], after["master"]) == (0, 2, rotated["to"])
    done = control.run("subjects", "status", PENSTOCK_KEYS_MASTER="ab" * 32)
    assert done.returncode == 1
    assert "wrapped by the master key with the mark" in done.stderr


class Near:
    """Commands in this process, against the same control: what they print is what a process of its own would."""

    def __init__(self, control: Control) -> None:
        self._environment = {"PENSTOCK_DATA": str(control.data), "PENSTOCK_URL": control.url}

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(cli, words, env=self._environment, prog_name="penstock", standalone_mode=False)

    def json(self, *words: str) -> Any:
        done = self.run(*words, "--json")
        assert done.exception is None, done.output
        return json.loads(done.stdout)


def test_names_cards_data_and_differences_of_versions(control: Control, tmp_path: Path) -> None:
    near = Near(control)
    record, data = tmp_path / "record.yaml", tmp_path / "data"
    data.mkdir()
    (data / "lines.jsonl").write_text("{}\n")
    record.write_text(
        "source: Made up.\nlicence: mit\nconsent: {basis: synthetic}\ncustodians: [{name: me, since: 2026-01-01}]\n"
    )
    digest = near.json("datasets", "register", "talks", "-f", str(record), "--of", str(data))["digest"]
    assert near.json("datasets", "digest", str(data))["digest"] == digest
    for label, step in (("v1.0.0", 0.0), ("v1.1.0", 1.0)):
        folder, meta = tmp_path / label, tmp_path / f"{label}.yaml"
        folder.mkdir()
        header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
        (folder / "model.safetensors").write_bytes(
            len(header).to_bytes(8, "little") + header + struct.pack("<2f", 1.0, 2.0 + step)
        )
        base = "lineage: [{relation: fine_tuned_from, version: told:v1.0.0}]" if step else ""
        meta.write_text(f"licence: mit\ntraining: {{data: [{{dataset: talks}}], started: 2026-01-02}}\n{base}\n")
        near.json("models", "push", str(folder), f"told:{label}", "--meta", str(meta))
    assert near.run("models", "next", "told").stdout == "v1.2.0\n"
    assert near.run("models", "next", "told", "--bump", "major", "--pre", "rc").stdout == "v2.0.0-rc.1\n"

    first = near.json("models", "alias", "set", "told@champion", "told:v1.0.0", "--generation", "0")
    refused = near.run("models", "alias", "set", "told@champion", "v1.1.0", "--generation", "0")
    assert isinstance(refused.exception, Conflict)
    near.json("models", "alias", "set", "told@champion", "v1.1.0", "--reason", "better")
    assert near.json("models", "show", "told@champion")["label"] == "v1.1.0"
    moves = near.json("models", "alias", "history", "told@champion")["moves"]
    assert [one["label"] for one in moves] == ["v1.1.0", "v1.0.0"]
    assert moves[1]["digest"] == first["digest"]

    found = near.json("models", "diff", "told:v1.0.0", "told@champion")
    assert found["suggestion"]["bump"] == "minor"
    assert found["difference"]["tensors"]["changed"][0]["relative"] == pytest.approx(1 / 5**0.5)
    shown = near.run("models", "diff", "told:v1.0.0", "told:v1.1.0").stdout
    assert "minor (weights)" in shown
    assert "0.4472" in shown

    card = tmp_path / "card.md"
    card.write_text(near.run("models", "card", "told:v1.1.0", "--template").stdout)
    assert "license: mit" in card.read_text()
    assert near.json("models", "card", "told:v1.1.0", "--edit", str(card), "--reason", "begun")["revision"] == 1
    unchecked = near.run("models", "card", "told:v1.1.0", "--check")
    assert unchecked.return_value == 1
    assert "the section 'limitations'" in unchecked.stdout
    assert "penstock models card told:v1.1.0 --edit card.md" in unchecked.stdout
    assert near.json("models", "card", "told:v1.1.0", "--revisions")["revisions"][0]["reason"] == "begun"

    edges = near.json("models", "lineage", "told:v1.1.0")["edges"]
    assert {(e["relation"], e["target"]) for e in edges} == {
        ("fine_tuned_from", "told:v1.0.0"),
        ("trained_on", "talks"),
    }
    told = near.run("datasets", "show", "talks").stdout
    assert "told:v1.0.0, told:v1.1.0" in told
    assert "me 2026-01-01 to now" in told
    kept = near.run("models", "delete", "told:v1.1.0", "--yes")
    assert isinstance(kept.exception, Conflict)
    assert near.json("models", "delete", "told:v1.0.0", "--yes", "--reason", "a test")["state"] == "deleted"


def test_exported_feedback_is_a_data_set(control: Control, tmp_path: Path) -> None:
    near = Near(control)
    out = tmp_path / "feedback"
    told = near.json("feedback", "export", str(out), "--register", "feedback-of-nobody")
    assert (told["supervised"], told["preferences"]) == (0, 0)
    assert sorted(path.name for path in out.iterdir()) == ["dataset.yaml", "preferences.jsonl", "supervised.jsonl"]
    assert near.json("datasets", "show", "feedback-of-nobody")["digest"] == told["digest"]
    again = near.run("feedback", "export", str(out))
    assert isinstance(again.exception, Conflict)
