"""Settings of processes: `penstock.toml` and `PENSTOCK_*`, read here and nowhere else; an unknown key is refused by name.

The environment variable of a setting is its path: `gateway.port` is `PENSTOCK_GATEWAY_PORT`. Precedence: flag, variable, file, default.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from penstock.core.errors import BadRequest


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The data plane."""

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    grpc_port: int = 8082  # of `penstock grpc`; 0: `up` runs none
    max_header_bytes: int = 32768
    max_body_bytes: int = 4194304
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0
    drain_s: float = 20.0
    max_connections: int = 8192
    tls_certificate: str = ""  # PEM, with its chain; empty: plain HTTP
    tls_key: str = ""  # PEM, not encrypted
    cache_bytes: int = 67108864
    notice_per_s: Annotated[float, msgspec.Meta(ge=0.0)] = (
        100.0  # requests that a worker looks at for drift, a second at most; 0: none
    )
    control_url: str = ""  # empty: serve from the Snapshot on disk alone
    snapshot_file: str = ""  # empty: DATA/gateway/snapshot.json
    redis_url: str = ""  # what gateways of several hosts share: limits; redis://HOST:PORT/DB, rediss:// or unix://
    ledger_down: Literal["open", "closed"] = "open"  # limits while the ledger is away: each worker's share, or 503
    journal_segment_bytes: int = 67108864
    journal_disk_bytes: int = 8589934592  # of all segments of one worker; then shipped ones go, or records are lost


class ControlSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The control plane."""

    host: str = "127.0.0.1"
    port: int = 8081
    database: str = ""  # empty: sqlite in DATA/penstock.db; or postgresql+asyncpg://...
    blobs: str = ""  # empty: DATA/blobs; or s3://bucket/prefix
    environment: str = "production"
    machine_usd_per_hour: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0  # of a machine that engines run on; 0: not known
    monitoring_token_file: str = ""  # shown by Prometheus and Alertmanager; empty: DATA/monitoring.token
    pushes_per_key: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 256  # under way at a time
    push_bytes_per_key: Annotated[int, msgspec.Meta(ge=1 << 20, le=1 << 60)] = 1 << 40  # of all of these
    evaluations_per_key: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 100  # that wait or run
    failed_logins_per_minute: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 60  # of one address
    checks_at_once: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1  # fsck, by this process


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The embedded engine."""

    host: str = "127.0.0.1"
    port: int = 8090
    max_running: int = 16
    max_waiting: int = 128
    kv_cache_mb: int = 256
    threads: int = 0  # 0: as many as cores
    prefix_cache: bool = False  # off: replies must not tell tenants about each other by their timing
    stream_interval_s: float = 0.005  # tokens of a stream that come closer together go out together
    drain_s: float = 20.0
    hang_s: Annotated[float, msgspec.Meta(ge=0.0)] = (
        30.0  # a worker that has work and is idle so long is replaced; 0: none
    )


class ShipSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shipper."""

    host: str = "127.0.0.1"
    port: int = 8083  # /metrics, /healthz
    control_url: str = ""
    poll_s: float = 0.1
    otlp_url: str = ""  # traces by OTLP: http(s)://HOST:4318, or grpc(s)://HOST:4317; empty: none
    otlp_headers: str = ""  # name=value,name=value
    zipkin_url: str = ""  # traces by Zipkin's JSON: http(s)://HOST:9411; empty: none
    trace_share: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 1.0  # of requests that nothing else keeps
    slow_s: float = 10.0  # requests that take longer are kept in traces, and tagged in documents
    elasticsearch_url: str = ""  # empty: none
    elasticsearch_api_key: str = ""
    elasticsearch_retention_days: Annotated[int, msgspec.Meta(ge=1)] = 30
    stdout: bool = False  # the same documents as lines on stdout
    events: bool = True  # changes of state go to Elasticsearch and stdout too; where several hosts ship, on one of them


class AnalyticsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The analytical store, which the shipper writes and control reads."""

    enabled: bool = True  # if penstock[analytics] is installed
    folder: str = ""  # empty: DATA/analytics
    flush_s: float = 30.0  # how long a record may wait before it stands in a file
    upkeep_s: float = 60.0  # between two looks at what is to be merged or removed
    disk_bytes: int = 21474836480  # of all files; then the oldest days go
    query_s: float = 30.0  # a statement's longest time
    query_rows: int = 10000  # most rows of a result
    query_memory_mb: int = 512


class SupervisorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The supervisor."""

    hang_s: Annotated[float, msgspec.Meta(ge=0.0)] = 30.0  # a process that says nothing so long is replaced; 0: none is


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Webhooks: who is told of what happens to models."""

    secrets: str = ""  # folder of what messages are signed with; empty: DATA/secrets
    allow_networks: str = ""  # networks that messages may go to beside the public internet: 10.0.0.0/8,127.0.0.1
    timeout_s: Annotated[float, msgspec.Meta(gt=0.0, le=60.0)] = 10.0  # of one attempt
    give_up_s: Annotated[float, msgspec.Meta(gt=0.0)] = 86400.0  # from the first attempt until it is a dead letter
    keep_days: Annotated[float, msgspec.Meta(gt=0.0)] = 7.0  # what was delivered, and dead letters


class ExaminerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What evaluates versions."""

    lm_eval: str = (
        ""  # the program of lm-evaluation-harness; empty: of an environment that is made below DATA/toolchains
    )


class KeySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys that content is encrypted and names are hashed under."""

    master: str = ""  # the master key, 64 hexadecimal digits; empty: that of the file
    master_file: str = ""  # empty: DATA/master.key, which is made at the first start
    folder: str = ""  # of the keys that it wraps; empty: DATA/keys
    shared: bool = (
        False  # control keeps those of all hosts, and has each forget: the same on control, gateways and shippers
    )


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole tree."""

    data: str = "./penstock-data"
    url: str = ""  # of control, for the CLI
    key: str = ""  # for the CLI
    starter: str = ""  # folder of the starter models; empty: those of the source tree, if it is one
    empty: bool = False  # register no starter models at the first start
    service_token: str = ""  # what processes show to control; empty: DATA/service.token
    gateway: GatewaySettings = GatewaySettings()
    control: ControlSettings = ControlSettings()
    engine: EngineSettings = EngineSettings()
    ship: ShipSettings = ShipSettings()
    analytics: AnalyticsSettings = AnalyticsSettings()
    keys: KeySettings = KeySettings()
    examiner: ExaminerSettings = ExaminerSettings()
    webhooks: WebhookSettings = WebhookSettings()
    supervisor: SupervisorSettings = SupervisorSettings()


GROUPS = ("gateway", "control", "engine", "ship", "analytics", "keys", "webhooks", "supervisor", "examiner")


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith("PENSTOCK_") or variable == "PENSTOCK_CONFIG":
            continue
        path = variable.removeprefix("PENSTOCK_").lower()
        group, _, field = path.partition("_")
        if group in GROUPS and field:
            tree.setdefault(group, {})[field] = text
        else:
            tree[path] = text
    return tree


def load_settings(
    environ: Mapping[str, str], file: Path | None = None, flags: Mapping[str, Any] | None = None
) -> Settings:
    """The settings from `file` (TOML), then `environ`, then `flags` (`{"gateway.port": 8080}`; None values are skipped).

    Raises:
        BadRequest: if a key is unknown or a value has the wrong type; the message names it.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        try:
            tree = tomllib.loads(file.read_text())
        except tomllib.TOMLDecodeError as error:
            raise BadRequest(f"{file} is not TOML: {error}.", param=str(file)) from None
    for source in (_from_environment(environ), _nested(flags or {})):
        for key, value in source.items():
            if isinstance(value, dict):
                tree[key] = {**tree.get(key, {}), **value}
            else:
                tree[key] = value
    try:
        return msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(f"The settings are wrong: {error}.", param="settings") from None


def _nested(flags: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flags.items():
        if value is None:
            continue
        group, dot, field = path.partition(".")
        if dot:
            tree.setdefault(group, {})[field] = value
        else:
            tree[group] = value
    return tree
