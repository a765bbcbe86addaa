"""Writes the pages of `docs/reference` that follow from the code: commands, settings, metrics. `python scripts/make_reference.py`

A test compares the pages with what this makes, so that none of them can be out of date.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import create_async_engine

from penstock.access.principals import ROLES
from penstock.cli.main import cli
from penstock.control.app import build_app
from penstock.control.content.opened import Contents
from penstock.control.context import Control
from penstock.control.deploy.publisher import Publisher
from penstock.control.experiments.life import active_experiments
from penstock.control.public import public_routers
from penstock.control.readiness import Readiness
from penstock.control.rules import Rule, rules_of
from penstock.core.metrics import TABLE
from penstock.core.settings import Settings
from penstock.journal.analytics.named import NAMED
from penstock.journal.analytics.tables import COLUMNS, PLACE, TABLES
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.masterkey import Wrapping
from penstock.store.blobs import open_blobs
from penstock.store.sql import Database

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
MADE = "<!-- Made by scripts/make_reference.py; change the code, then run that. -->\n"

SETTINGS = {
    "data": "The data folder: database, blobs, journal, keys, logs.",
    "url": "Where the control plane is, for the commands that ask it. Empty: what runs on the data folder.",
    "key": "The key that commands ask the control plane with. Empty: `DATA/admin.key`, if control runs on this machine.",
    "starter": "Folder of the starter models. Empty: those of the source tree, if Penstock runs from one.",
    "empty": "Register no starter models, and create no tenant `demo`, at the first start.",
    "service_token": "What gateways and shipper show to control. Empty: the text of `DATA/service.token`.",
    "gateway.host": "Address that the gateway listens on.",
    "gateway.port": "Its port: the OpenAI API, `/metrics`, `/healthz`, `/readyz`.",
    "gateway.workers": "Processes that share the port.",
    "gateway.grpc_port": "Port of the gRPC server: the Open Inference Protocol v2. 0: `up` runs none.",
    "gateway.max_header_bytes": "Largest head of a request.",
    "gateway.max_body_bytes": "Largest body of a request.",
    "gateway.header_timeout_s": "Seconds from a request's first byte to the end of its head.",
    "gateway.body_timeout_s": "Seconds from the end of the head to the end of the body.",
    "gateway.idle_timeout_s": "Seconds that a connection may rest between requests.",
    "gateway.drain_s": "Seconds that requests in flight have to finish when the gateway is told to stop.",
    "gateway.max_connections": "Most client connections of one worker.",
    "gateway.tls_certificate": "Certificate with its chain, PEM; read again when it changes, and on SIGHUP. Empty: plain HTTP. See [edge](../edge.md).",
    "gateway.tls_key": "The certificate's key, PEM, not encrypted.",
    "gateway.cache_bytes": "Memory for kept answers, per worker.",
    "gateway.notice_per_s": "Requests a second of each worker, at most, in which [drift](../drift.md) is looked for. 0: none.",
    "gateway.control_url": "Where control is. Empty: the Snapshot on disk is served and never renewed. `up` sets it.",
    "gateway.snapshot_file": "Where the Snapshot is kept. Empty: `DATA/gateway/snapshot.json`.",
    "gateway.redis_url": "Redis that gateways of several hosts share for limits and answers: `redis://HOST:PORT/DB`, `rediss://` or `unix://`. Empty: none.",
    "gateway.ledger_down": "Limits while the ledger is away: `open` grants each worker its share, `closed` answers 503.",
    "gateway.journal_segment_bytes": "Size at which a journal begins its next segment.",
    "gateway.journal_disk_bytes": "Most bytes of one worker's journal; beyond it segments that were shipped are removed.",
    "keys.master": "The master key, 64 hexadecimal digits. Empty: that of the file. See [content](../content.md).",
    "keys.master_file": "File of the master key. Empty: `DATA/master.key`, which is made at the first start.",
    "keys.folder": "The keys that the master key wraps. Empty: `DATA/keys`.",
    "keys.shared": "Control keeps the keys of all hosts, wrapped, and has each host forget; the same on control, gateways and shippers, with one master key.",
    "examiner.lm_eval": "The program of lm-evaluation-harness, for [suites that it asks](../gates.md#suites-of-lm-evaluation-harness). Empty: of an environment that is made below `DATA/toolchains`.",
    "webhooks.secrets": "Folder of the secrets that messages are signed with, by name. Empty: `DATA/secrets`. See [webhooks](../webhooks.md).",
    "webhooks.allow_networks": "Networks that messages may go to beside the public internet, `10.0.0.0/8,127.0.0.1`; plain HTTP goes to these alone.",
    "webhooks.timeout_s": "Longest time of one attempt to deliver a message, seconds.",
    "webhooks.give_up_s": "Seconds from the first attempt after which a message is a dead letter.",
    "webhooks.keep_days": "Days that delivered messages and dead letters are kept.",
    "control.host": "Address that the control plane listens on.",
    "control.port": "Its port: the console at `/`, the API at `/api/v1`.",
    "control.database": "Empty: SQLite in `DATA/penstock.db`; or `postgresql+asyncpg://USER:PASSWORD@HOST/NAME`.",
    "control.blobs": "Empty: `DATA/blobs`; or `s3://BUCKET/PREFIX`.",
    "control.environment": "The environment whose deployments the gateways serve.",
    "control.machine_usd_per_hour": "What an hour of a machine that engines run on costs: by it `penstock models build --suggest` tells the cost of a thousand answers. 0: not known.",
    "control.monitoring_token_file": "The token that Prometheus and Alertmanager show to control; it is made at the first start. Empty: `DATA/monitoring.token`.",
    "control.pushes_per_key": "Versions that one caller may be pushing at a time; more are refused with 429. See [limits](limits.md#control).",
    "control.push_bytes_per_key": "Bytes that these versions may have, all together.",
    "control.evaluations_per_key": "Evaluations that one caller may have waiting or running; callers take turns.",
    "control.failed_logins_per_minute": "Keys that nobody knows which one address may show; more are refused with 429. Keys that were right lately always pass.",
    "control.checks_at_once": "Checks of everything that is stored (`fsck`) that run at a time.",
    "supervisor.hang_s": "Seconds for which a process may say nothing before it is killed and started again; at least as long as it may drain. 0: none is.",
    "engine.host": "Address that an embedded engine listens on.",
    "engine.port": "Its port; under `up` the first one tried for replicas.",
    "engine.max_running": "Requests that run together in one engine.",
    "engine.max_waiting": "Requests that may wait beyond those; more are refused with 503.",
    "engine.kv_cache_mb": "Memory for keys and values, MiB.",
    "engine.threads": "CPU threads; 0: as many as there are cores.",
    "engine.prefix_cache": "Share the work on equal beginnings of prompts. Off: replies tell tenants nothing about each other.",
    "engine.stream_interval_s": "Tokens of a stream that come closer together than this go out together, seconds.",
    "engine.hang_s": "Seconds for which the process that computes may have work and neither use the CPU nor answer before it is killed and started again. 0: it is not.",
    "engine.drain_s": "Seconds that requests in flight have to finish when the engine is told to stop.",
    "ship.host": "Address of the shipper's own small server.",
    "ship.port": "Its port: `/metrics`, `/healthz`.",
    "ship.control_url": "Where control is. `up` sets it.",
    "ship.poll_s": "Seconds between two looks at a journal that has nothing new.",
    "analytics.enabled": "Write the analytical store, if `penstock[analytics]` is installed. See [analytics](../analytics.md).",
    "analytics.folder": "Where it is. Empty: `DATA/analytics`.",
    "analytics.flush_s": "Seconds between two files of a journal that has something new.",
    "analytics.upkeep_s": "Seconds between two looks at what is to be merged or removed.",
    "analytics.disk_bytes": "Most bytes of the store; beyond it the oldest days go, and are counted.",
    "analytics.query_s": "Longest time of a statement of `penstock query`, seconds.",
    "analytics.query_rows": "Most rows of its result.",
    "analytics.query_memory_mb": "Memory that it may use, MiB.",
    "ship.otlp_url": "Where traces go by OTLP: `http://HOST:4318` or `grpc://HOST:4317` (`https`, `grpcs` through TLS). Empty: nowhere. See [sinks](sinks.md).",
    "ship.otlp_headers": "Header fields for the collector, `name=value,name=value`, as an API key is given.",
    "ship.zipkin_url": "Where traces go as Zipkin's JSON: `http://HOST:9411`. Empty: nowhere.",
    "ship.trace_share": "Share of the requests that are traced, beside those that failed, were slow or flagged, which all are.",
    "ship.slow_s": "Seconds beyond which a request counts as slow: its trace is kept, its document tagged.",
    "ship.elasticsearch_url": "Where documents go: `http://HOST:9200`, with `NAME:PASSWORD@` if need be. Empty: nowhere.",
    "ship.elasticsearch_api_key": "API key for Elasticsearch, as its `encoded` form.",
    "ship.elasticsearch_retention_days": "Days after which documents are deleted, in the policy that the shipper installs.",
    "ship.stdout": "Write the same documents as lines on the shipper's stdout, for a collector of logs.",
    "ship.events": "Changes of state (promotions, keys, policies, alerts, restarts) go to Elasticsearch and stdout too. Where several hosts ship, on one of them alone.",
}


def settings_fields() -> Iterator[tuple[str, object, type]]:
    """Path, default and owner of every setting."""
    for field in msgspec.structs.fields(Settings):
        value = getattr(Settings(), field.name)
        if isinstance(value, msgspec.Struct):
            for inner in msgspec.structs.fields(type(value)):
                yield f"{field.name}.{inner.name}", getattr(value, inner.name), type(value)
        else:
            yield field.name, value, Settings


def settings_page() -> str:
    """`settings.md`.

    Raises:
        KeyError: if a setting has no description above.
    """
    lines = [
        "# Settings\n",
        MADE,
        "A setting is given by a flag, by an environment variable, or in `penstock.toml` in the working folder (`PENSTOCK_CONFIG` names",
        "another file). A flag goes before a variable, a variable before the file. An unknown key is refused by its name.\n",
        "```toml",
        "# penstock.toml",
        'data = "/var/lib/penstock"\n',
        "[gateway]",
        "port = 8080",
        "workers = 4\n",
        "[control]",
        'database = "postgresql+asyncpg://penstock@db/penstock"',
        "```\n",
        "| setting | variable | default | means |",
        "|---|---|---|---|",
    ]
    for path, default, _ in settings_fields():
        variable = f"PENSTOCK_{path.replace('.', '_')}".upper()
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        lines.append(f"| `{path}` | `{variable}` | {f'`{shown}`' if shown else 'empty'} | {SETTINGS[path]} |")
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    """`metrics.md`."""
    lines = [
        "# Metrics\n",
        MADE,
        "Each process answers `GET /metrics` in Prometheus' text format; that of the gateway holds all workers of the machine. Names follow",
        "OpenTelemetry's GenAI conventions where these have one; engines use vLLM's names; the rest begins with `penstock_`. The unit `1` is a number of what the name says, or a bare number; in OpenMetrics a `# UNIT` line stands where the name ends with the unit.",
        "In one gateway worker a metric has at most 5,000 series: what comes beyond is counted where the route, tenant, version and the like are `other`, and",
        "`penstock_series_overflow_total` tells how often. Series of routes, tenants, versions, experiments and arms that no Snapshot has had for an hour leave.\n",
        "| metric | type | unit | labels | of | tells |",
        "|---|---|---|---|---|---|",
    ]
    for entry in TABLE:
        labels = ", ".join(f"`{label}`" for label in entry.labels) or "-"
        lines.append(f"| `{entry.name}` | {entry.kind} | {entry.unit} | {labels} | {', '.join(entry.on)} | {entry.help} |")
    return "\n".join(lines) + "\n"


def commands(group: click.Group | None = None, path: str = "penstock") -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name, in the order of `--help`."""
    group = group or cli
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


def cli_page() -> str:
    """`cli.md`."""
    lines = [
        "# Commands\n",
        MADE,
        "Exit status: 0 done, 1 refused or failed with a sentence on stderr, 2 wrong usage. With `--json` a command prints one JSON document.",
        "Commands that ask the control plane take `--url` and `--key` (`PENSTOCK_URL`, `PENSTOCK_KEY`); beside a data folder (`--data`, by",
        "default `./penstock-data`) they find both themselves. A reference is `NAME:LABEL`, `NAME@ALIAS`, `NAME@sha256:...`, or the full name",
        "that people write, such as `support-bot-v1.1.0`.\n",
    ]
    for name, command in commands():
        context = click.Context(command, info_name=name)
        lines.append(f"{'###' if name.count(' ') > 1 else '##'} `{name}`\n")
        if isinstance(command, click.Group):
            lines.append(f"{(command.help or '').strip()}\n")
            continue
        usage = " ".join(command.collect_usage_pieces(context))
        lines += [f"```\n{name} {usage}\n```\n", _paragraphs(command.help or "")]
        flags: list[str] = []
        told = {"url", "key", "data", "as_json"} if any(p.name == "url" for p in command.params) else set()
        for parameter in command.params:
            if parameter.name in told:  # said once, at the top
                continue
            record = parameter.get_help_record(context)
            if record is not None:
                flag, text = record
                flags.append(f"| `{flag.replace('|', chr(92) + '|')}` | {text.replace('|', chr(92) + '|')} |")
        if flags:
            lines += ["| flag | means |", "|---|---|", *flags, ""]
    return "\n".join(lines)


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n")) + "\n"


def tables_page() -> str:
    """`analytics-tables.md`."""
    lines = ["# Tables of the analytical store\n", MADE, "See [analytics](../analytics.md). All times are UTC.\n"]
    first = (
        ("day", "DATE", "Of the exchange; of an observation, when it was told. A partition."),
        ("tenant", "VARCHAR", "A partition."),
    )
    place = {"worker": "Whose journal holds it.", "segment": "Of the journal.", "position": "Byte in the segment."}
    for table in TABLES:
        lines += [f"## {table}\n", "| column | type | holds |", "|---|---|---|"]
        rows = [*first, *((one.name, one.type, one.help) for one in COLUMNS[table])]
        rows += [(name, type_, place[name]) for name, type_ in PLACE]
        rows += [("cost_usd", "DOUBLE", "`cost_nanousd / 1e9`.")] if table == "exchanges" else []
        lines += [f"| `{name}` | {type_} | {help_} |" for name, type_, help_ in rows]
        lines.append("")
    lines.append("## Queries with names\n")
    for name, one in NAMED.items():
        lines += [f"`@{name}`: {one.help}\n", f"```sql\n{one.sql}\n```\n"]
    return "\n".join(lines).rstrip() + "\n"


@contextmanager
def control_app() -> Iterator[FastAPI]:
    """The control plane's application with every endpoint of the API; nothing of it is opened."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        database = Database(create_async_engine("sqlite+aiosqlite://"))
        control = Control(
            settings=Settings(),
            data=data,
            database=database,
            blobs=open_blobs("", data / "blobs", database),
            service_token="",
            clock=time.time,
            entropy=os.urandom,
        )
        keys = FileKeystore.open(data / "keys", Wrapping(bytes(32)))
        readiness = Readiness()
        routers = public_routers(control, Contents(control, keys), keys, None, readiness, dict, None)
        yield build_app(control, Publisher(control, active_experiments=active_experiments), readiness, routers=routers)


_SHOWN = {"service": "the service token", "monitoring": "the monitoring token", "": "anybody"}


def access_page() -> str:
    """`access.md`."""
    with control_app() as app:
        rules = [rule for rule in rules_of(app) if rule.path.startswith("/api/")]
    lines = [
        "# Who may call what\n",
        MADE,
        "A key's roles give permissions, and each call needs one. A key that belongs to a tenant is besides held to it: calls marked *tenant* show and change",
        "what is its tenant's alone, those marked *installation* are refused to it with 403, `held_to_tenant`. [Why so](../decisions/0040-scopes.md).\n",
        "The same stands in the OpenAPI at each call, as `x-penstock-access`.\n",
        f"| permission | {' | '.join(ROLES)} |",
        f"|---|{'---|' * len(ROLES)}",
    ]
    for permission in sorted(set().union(*ROLES.values())):
        held = ("yes" if permission in given else "" for given in ROLES.values())
        lines.append(f"| `{permission}` | {' | '.join(held)} |")
    lines += ["", "| call | needs | is | roles that may | with a tenant |", "|---|---|---|---|---|"]
    return "\n".join(lines + [_rule_line(rule) for rule in rules]) + "\n"


def _rule_line(rule: Rule) -> str:
    call = f"`{rule.method} {rule.path.removeprefix('/api/v1')}`"
    if rule.scope is None:
        return f"| {call} | {_SHOWN[rule.shows]} | | | |"
    needs = " or ".join(f"`{one}`" for one in rule.permissions) or "any key"
    roles = ", ".join(rule.roles) or "all"
    return f"| {call} | {needs} | {rule.scope} | {roles} | {'its own' if rule.scope == 'tenant' else 'no'} |"


PAGES = {
    "access.md": access_page,
    "analytics-tables.md": tables_page,
    "settings.md": settings_page,
    "metrics.md": metrics_page,
    "cli.md": cli_page,
}


def main() -> None:
    """Writes all pages."""
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
