"""Writes `deploy/prometheus/rules/*.yaml`, recording rules and alerts, and `docs/reference/alerts.md`. Run `python scripts/make_rules.py`.

A test compares the files with what this makes, and every name and label in them with the metrics table. Objectives and bounds stand
here, at the top and in each alert; whoever wants others changes them and runs this.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "prometheus" / "rules"
PAGE = ROOT / "docs" / "reference" / "alerts.md"
MADE = "# Made by scripts/make_rules.py; change that, then run it.\n"

AVAILABILITY = 0.995  # share of requests that are answered: no 5xx, no stream that breaks off
IN_TIME = 0.95  # share of answers whose first token comes within LATE_S
LATE_S = 2.5  # one of the bounds of gen_ai_server_time_to_first_token_seconds
FLOOR = 10  # so many bad requests in the long window, or nothing fires: one failure among three is no emergency

WINDOWS = {"5m": 300, "30m": 1800, "1h": 3600, "2h": 7200, "6h": 21600, "1d": 86400, "3d": 259200}
# Long window, short window, burn rate: Site Reliability Workbook, chapter 5, table 5-8 (2 %, 5 %, 10 % of the budget of 30 days) and
# the step between them that Alertmanager's examples use.
FAST = (("1h", "5m", 14.4), ("6h", "30m", 6.0))
SLOW = (("1d", "2h", 3.0), ("3d", "6h", 1.0))

USERS = 'route!~"|[(]evaluators[)]/.*"'  # the routes of evaluators have no objective: nobody waits there


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert. `runbook` is a page in docs/runbooks; `page` wakes somebody, `ticket` waits for the morning."""

    name: str
    severity: Literal["page", "ticket"]
    wait: str  # how long it must be so before it fires
    expr: str
    summary: str
    runbook: str


def recorded() -> Iterator[tuple[str, str]]:
    """Name and expression of each series that alerts and dashboards share."""
    for window in WINDOWS:
        failed = (
            f'sum by (route) (rate(penstock_requests_total{{{USERS},outcome=~"error|truncated|crashed"}}[{window}]))'
        )
        everything = f"sum by (route) (rate(penstock_requests_total{{{USERS}}}[{window}]))"
        yield f"route:penstock_requests:rate{window}", everything
        yield f"route:penstock_failures:rate{window}", f"{failed} or 0 * {everything}"
        first = "gen_ai_server_time_to_first_token_seconds"
        yield f"route:penstock_first_tokens:rate{window}", _by_route(f"{first}_count", window)
        yield (
            f"route:penstock_late_first_tokens:rate{window}",
            f"{_by_route(f'{first}_count', window)} - {_by_route(f'{first}_bucket', window, le=str(LATE_S))}",
        )
    running = "sum by (model_name) (avg_over_time(vllm:num_requests_running[10m])) > 0.5"
    yield (
        "model_name:penstock_tokens_per_sequence:rate10m",
        f"sum by (model_name) (rate(vllm:generation_tokens_total[10m])) / ({running})",
    )
    yield "tenant_route:penstock_cost_usd:rate1h", "sum by (tenant, route) (rate(penstock_cost_usd_total[1h]))"


def _by_route(name: str, window: str, **labels: str) -> str:
    chosen = ",".join(['gen_ai_request_model!=""', *(f'{key}="{value}"' for key, value in labels.items())])
    rate = f"sum by (gen_ai_request_model) (rate({name}{{{chosen}}}[{window}]))"
    return f'sum by (route) (label_replace({rate}, "route", "$1", "gen_ai_request_model", "(.*)"))'


def burn(bad: str, all_: str, objective: float, windows: tuple[tuple[str, str, float], ...]) -> str:
    """The expression that holds while the budget of `objective` burns faster than each rate, in both windows of a pair."""
    parts = []
    for long, short, rate in windows:
        bound = f"{rate * (1 - objective):.6g}"
        parts.append(
            f"(\n  {bad}:rate{long} / {all_}:rate{long} > {bound}\n"
            f"  and {bad}:rate{short} / {all_}:rate{short} > {bound}\n"
            f"  and {bad}:rate{long} * {WINDOWS[long]} >= {FLOOR}\n)"
        )
    return "\nor\n".join(parts)


def _burns() -> Iterator[Alert]:
    answered = ("route:penstock_failures", "route:penstock_requests", AVAILABILITY)
    in_time = ("route:penstock_late_first_tokens", "route:penstock_first_tokens", IN_TIME)
    for name, page, objective, words in (
        ("Availability", "availability-burn", answered, f"{AVAILABILITY:.1%} of requests answered"),
        ("Latency", "latency-burn", in_time, f"{IN_TIME:.0%} of first tokens within {LATE_S:g} s"),
    ):
        yield Alert(
            name=f"Penstock{name}FastBurn",
            severity="page",
            wait="2m",
            expr=burn(*objective, FAST),
            summary=f"The route {{{{ $labels.route }}}} burns its budget ({words}) so fast that it is gone in days: {{{{ $value | humanizePercentage }}}} are bad.",
            runbook=page,
        )
        yield Alert(
            name=f"Penstock{name}SlowBurn",
            severity="ticket",
            wait="15m",
            expr=burn(*objective, SLOW),
            summary=f"The route {{{{ $labels.route }}}} will not hold its objective ({words}) over 30 days: {{{{ $value | humanizePercentage }}}} are bad.",
            runbook=page,
        )


def _alert(name: str, severity: Literal["page", "ticket"], wait: str, runbook: str, expr: str, summary: str) -> Alert:
    return Alert(
        name=f"Penstock{name}", severity=severity, wait=wait, runbook=runbook, expr=expr.strip(), summary=summary
    )


LOAD = (
    _alert(
        "QueueGrowing", "page", "5m", "queue",
        "sum by (pool) (avg_over_time(penstock_queue_waiting[5m])) > 10\n"
        "and sum by (pool) (avg_over_time(penstock_queue_waiting[5m]))\n"
        "  > 1.5 * sum by (pool) (avg_over_time(penstock_queue_waiting[5m] offset 10m))",
        "{{ $value | humanize }} requests wait for the pool {{ $labels.pool }}, half as many again as 10 minutes ago.",
    ),
    _alert(
        "QueueRefusing", "ticket", "5m", "queue",
        "sum by (pool) (increase(penstock_queue_refusals_total[10m])) > 20",
        "The pool {{ $labels.pool }} had no place for {{ $value | humanize }} requests within 10 minutes.",
    ),
    _alert(
        "KvCacheSaturated", "ticket", "5m", "kv-cache",
        "min by (model_name, instance) (avg_over_time(vllm:kv_cache_usage_perc[10m])) > 0.95",
        "The KV cache of an engine of {{ $labels.model_name }} is {{ $value | humanizePercentage }} full.",
    ),
    _alert(
        "TokenThroughputFell", "ticket", "15m", "token-throughput",
        "model_name:penstock_tokens_per_sequence:rate10m\n"
        "  < 0.5 * avg_over_time(model_name:penstock_tokens_per_sequence:rate10m[1d] offset 1h)",
        "Sequences of {{ $labels.model_name }} get {{ $value | humanize }} tokens a second, less than half of the day before.",
    ),
    _alert(
        "CostAnomaly", "ticket", "15m", "cost-anomaly",
        "tenant_route:penstock_cost_usd:rate1h * 3600 > 1\n"
        "and tenant_route:penstock_cost_usd:rate1h\n"
        "  > 3 * avg_over_time(tenant_route:penstock_cost_usd:rate1h[7d] offset 1h)",
        "{{ $labels.tenant }} spends ${{ $value | humanize }} an hour on {{ $labels.route }}, over three times its week's mean.",
    ),
    _alert(
        "SafetySpike", "page", "5m", "safety-spike",
        "sum by (rule) (increase(penstock_guard_findings_total[10m])) > 20\n"
        "and sum by (rule) (rate(penstock_guard_findings_total[10m]))\n"
        "  > 5 * (sum by (rule) (rate(penstock_guard_findings_total[6h] offset 10m))\n"
        "         or 0 * sum by (rule) (rate(penstock_guard_findings_total[10m])))",
        "The content rule {{ $labels.rule }} found something {{ $value | humanize }} times in 10 minutes, over five times the mean of the hours before.",
    ),
)  # fmt: skip

RECORDS = (
    _alert(
        "JournalLoss", "page", "0m", "journal-loss",
        "sum by (instance) (increase(penstock_journal_lost_records_total[15m])) > 0",
        "{{ $value | humanize }} records could not be written to the journal of {{ $labels.instance }}: they are lost.",
    ),
    _alert(
        "JournalFailing", "ticket", "0m", "journal-loss",
        "sum by (instance) (increase(penstock_journal_failures_total[15m])) > 0",
        "Writes to the journal of {{ $labels.instance }} failed {{ $value | humanize }} times.",
    ),
    _alert(
        "ContentLost", "ticket", "0m", "journal-loss",
        "sum by (instance) (increase(penstock_content_lost_total[15m])) > 0",
        "The content of {{ $value | humanize }} requests at {{ $labels.instance }} was to be kept and could not be encrypted.",
    ),
    _alert(
        "ForgettingUnconfirmed", "ticket", "15m", "forgetting",
        "max by (host) (penstock_forgettings_unconfirmed) > 0",
        "{{ $labels.host }} has not carried out {{ $value }} orders to forget somebody.",
    ),
    _alert(
        "SinkLag", "ticket", "10m", "sink-lag",
        "max by (instance, reader) (penstock_ship_lag_bytes) > 64 * 1024 * 1024",
        "The reader {{ $labels.reader }} is {{ $value | humanize1024 }}B of journal behind.",
    ),
    _alert(
        "SinkFailing", "ticket", "10m", "sink-lag",
        "sum by (instance, reader) (increase(penstock_ship_failures_total[10m])) > 5\n"
        "and sum by (instance, reader) (increase(penstock_ship_records_total[10m])) == 0",
        "The sink of {{ $labels.reader }} takes nothing; {{ $value | humanize }} attempts failed within 10 minutes.",
    ),
    _alert(
        "SinkDeadLetters", "ticket", "0m", "sink-lag",
        "sum by (instance, reader) (increase(penstock_ship_dead_letters_total[15m])) > 0",
        "The sink of {{ $labels.reader }} refused {{ $value | humanize }} records for good.",
    ),
    _alert(
        "JournalDamaged", "ticket", "0m", "journal-loss",
        "sum by (instance, reader) (increase(penstock_ship_damaged_bytes_total[15m])) > 0",
        "{{ $labels.reader }} stepped over {{ $value | humanize1024 }}B of journal that hold no readable record.",
    ),
)  # fmt: skip

PLACES = (
    _alert(
        "PoolDown", "page", "1m", "pool-down",
        "max by (pool) (penstock_replica_up) == 0",
        "No replica of the pool {{ $labels.pool }} takes requests.",
    ),
    _alert(
        "ReplicaOut", "ticket", "10m", "replica-out",
        "max by (pool, replica) (penstock_replica_up) == 0",
        "The replica {{ $labels.replica }} of {{ $labels.pool }} is left out by every gateway worker.",
    ),
    _alert(
        "ReplicaFlapping", "ticket", "0m", "replica-out",
        "max by (pool, replica) (increase(penstock_replica_ejections_total[1h])) > 6",
        "The replica {{ $labels.replica }} of {{ $labels.pool }} was left out {{ $value | humanize }} times within an hour.",
    ),
    _alert(
        "EngineRestarting", "ticket", "0m", "engine-restarts",
        "sum by (model_name, instance) (increase(penstock_engine_restarts_total[30m])) > 2",
        "The pipeline worker of {{ $labels.model_name }} at {{ $labels.instance }} died {{ $value | humanize }} times in 30 minutes.",
    ),
    _alert(
        "ProcessRestarting", "ticket", "0m", "target-down",
        "max by (job, instance) (changes(process_start_time_seconds[30m])) > 3",
        "A process of {{ $labels.job }} at {{ $labels.instance }} was started {{ $value | humanize }} times within 30 minutes.",
    ),
    _alert(
        "GatewayDown", "page", "1m", "target-down",
        'absent(up{job="gateway"} == 1)',
        "No gateway answers Prometheus.",
    ),
    _alert(
        "TargetDown", "ticket", "2m", "target-down",
        'up{job=~"gateway|control|ship|engine"} == 0',
        "{{ $labels.job }} at {{ $labels.instance }} does not answer Prometheus.",
    ),
    _alert(
        "OpenFiles", "ticket", "10m", "open-files",
        "max by (job, instance) (process_open_fds / process_max_fds) > 0.8",
        "A process of {{ $labels.job }} at {{ $labels.instance }} has {{ $value | humanizePercentage }} of its open files in use.",
    ),
)  # fmt: skip

STATE = (
    _alert(
        "SnapshotFaults", "ticket", "5m", "snapshot",
        "max by (kind) (penstock_snapshot_faults) > 0",
        "{{ $value }} entries of kind {{ $labels.kind }} cannot be used; what depends on them is refused.",
    ),
    _alert(
        "SnapshotLag", "ticket", "5m", "snapshot",
        "penstock_snapshot_generation < on () group_left () max(penstock_control_snapshot_generation)",
        "The gateway worker {{ $labels.worker }} serves generation {{ $value }} and does not get the newest one.",
    ),
    _alert(
        "NoGatewayReports", "ticket", "5m", "snapshot",
        "max(penstock_control_gateways) == 0",
        "Control hears of no gateway worker.",
    ),
    _alert(
        "LedgerDown", "ticket", "2m", "ledger-down",
        "min by (instance) (penstock_ledger_up) == 0",
        "A gateway worker at {{ $labels.instance }} cannot ask the ledger of limits.",
    ),
    _alert(
        "CertificateExpiresSoon", "ticket", "1h", "certificate",
        "min by (instance) (penstock_tls_certificate_expires_timestamp_seconds) - time() < 14 * 86400",
        "The certificate of {{ $labels.instance }} ends in {{ $value | humanizeDuration }}.",
    ),
    _alert(
        "CertificateExpires", "page", "5m", "certificate",
        "min by (instance) (penstock_tls_certificate_expires_timestamp_seconds) - time() < 2 * 86400",
        "The certificate of {{ $labels.instance }} ends in {{ $value | humanizeDuration }}.",
    ),
    _alert(
        "CertificateRenewalFailing", "ticket", "0m", "certificate",
        "sum by (instance) (increase(penstock_tls_renewal_failures_total[1h])) > 0",
        "A changed certificate or key of {{ $labels.instance }} cannot be used; the one before stays.",
    ),
    _alert(
        "KeyExpires", "ticket", "1h", "key-expiry",
        "min by (tenant) (penstock_key_expires_timestamp_seconds) - time() < 7 * 86400",
        "A key of the tenant {{ $labels.tenant }} ends in {{ $value | humanizeDuration }}.",
    ),
    _alert(
        "ExperimentStuck", "ticket", "15m", "experiment-stuck",
        "time() - penstock_experiment_started_timestamp_seconds > 21600\n"
        "unless on (experiment) (\n"
        "  sum by (experiment) (penstock_experiment_units)\n"
        "  > (sum by (experiment) (penstock_experiment_units offset 6h) or 0 * sum by (experiment) (penstock_experiment_units))\n"
        ")",
        "The experiment {{ $labels.experiment }} runs and has counted no new unit for 6 hours.",
    ),
    _alert(
        "EvaluatorBehind", "ticket", "15m", "evaluators",
        "max by (evaluator) (penstock_evaluator_behind_seconds) > 1800",
        "The evaluator {{ $labels.evaluator }} is {{ $value | humanizeDuration }} behind: answers become too old to be scored.",
    ),
    _alert(
        "EvaluatorFailing", "ticket", "15m", "evaluators",
        'sum by (evaluator) (increase(penstock_evaluator_results_total{result=~"failed|unreadable|too_late"}[1h]))\n'
        "/ sum by (evaluator) (increase(penstock_evaluator_results_total[1h])) > 0.5",
        "The evaluator {{ $labels.evaluator }} cannot score most of what it draws: {{ $value | humanizePercentage }}.",
    ),
    _alert(
        "ExperimentHarm", "ticket", "0m", "experiment-harm",
        'sum by (route) (increase(penstock_experiments_ended_total{result="harm"}[1h])) > 0',
        "A guardrail of an experiment on {{ $labels.route }} tripped: all traffic is on its control.",
    ),
    _alert(
        "ExperimentBlocked", "ticket", "15m", "experiment-harm",
        "max by (experiment) (penstock_experiment_blocked) == 1",
        "The arms' sizes of the experiment {{ $labels.experiment }} contradict their shares: it says nothing.",
    ),
    _alert(
        "CanaryRolledBack", "ticket", "0m", "canary",
        'sum by (model) (increase(penstock_canaries_ended_total{result="rolled_back"}[1h])) > 0',
        "A canary of {{ $labels.model }} did harm and was rolled back; its version is blocked.",
    ),
    _alert(
        "CanaryUnwatched", "page", "1m", "canary",
        "max by (model, version) (penstock_canary_expires_timestamp_seconds) < time()",
        "Nobody watches the canary {{ $labels.version }}: its share has lapsed.",
    ),
)  # fmt: skip

DRIFT = (
    _alert(
        "WorseThanBefore", "page", "0m", "worse-than-before",
        'max by (model, arm, signal) (penstock_drift_alarm{against="before"}) == 1',
        "Users say less good of {{ $labels.model }} than of the version that it replaced ({{ $labels.signal }}).",
    ),
    _alert(
        "OutputDrift", "ticket", "0m", "drift",
        'max by (model, arm, signal) (penstock_drift_alarm{against="itself",signal!~"input_.*"}) == 1',
        "The answers of {{ $labels.model }} are not what they were ({{ $labels.signal }}).",
    ),
    _alert(
        "InputDrift", "ticket", "0m", "drift",
        'max by (model, arm, signal) (penstock_drift_alarm{against="itself",signal=~"input_.*"}) == 1',
        "{{ $labels.model }} is asked other things than it was ({{ $labels.signal }}).",
    ),
    _alert(
        "PopulationShifted", "ticket", "0m", "drift",
        "max by (model, arm, signal) (penstock_drift_shifted) == 1",
        "Yesterday, {{ $labels.signal }} of {{ $labels.model }} was far from its reference.",
    ),
)  # fmt: skip

ALERTS = {
    "objectives": tuple(_burns()),
    "load": LOAD,
    "records": RECORDS,
    "places": PLACES,
    "state": STATE,
    "drift": DRIFT,
}


def _group(name: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {"groups": [{"name": f"penstock-{name}", "rules": rules}]}


def _rule(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.wait,
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.summary, "runbook_url": f"docs/runbooks/{alert.runbook}.md"},
    }


class _Dumper(yaml.SafeDumper):
    """Texts of several lines stand as such."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def files() -> dict[str, str]:
    """The text of each file, by its name."""
    told = {"recording": _group("recording", [{"record": name, "expr": expr} for name, expr in recorded()])}
    for name, alerts in ALERTS.items():
        told[name] = _group(name, [_rule(alert) for alert in alerts])
    return {
        f"{name}.yaml": MADE + yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=1000)
        for name, value in told.items()
    }


def page() -> str:
    """The text of `alerts.md`."""
    lines = [
        "# Alerts\n",
        "<!-- Made by scripts/make_rules.py; change that, then run it. -->\n",
        "Prometheus' rules in `deploy/prometheus/rules`. `page` wakes somebody, `ticket` waits for the morning. How they travel, and what",
        "is left to set, is told in [monitoring](../monitoring.md).\n",
        f"Objectives: {AVAILABILITY:.1%} of a route's requests are answered (no 5xx, no stream that breaks off), and {IN_TIME:.0%} of the",
        f"answers have their first token within {LATE_S:g} s, each over 30 days. An alert needs a burn rate in a long and a short window at once",
        f"(Site Reliability Workbook, chapter 5), and {FLOOR} bad requests in the long one: `page` at 14.4 times in 1 h and 5 min, or 6 times in 6 h and",
        "30 min; `ticket` at 3 times in 1 d and 2 h, or once in 3 d and 6 h.\n",
        "| alert | severity | after | says | runbook |",
        "|---|---|---|---|---|",
    ]
    for alerts in ALERTS.values():
        for alert in alerts:
            words = re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"`\1`", alert.summary)
            words = re.sub(r"\{\{ \$value[^}]*\}\}", "N", words)
            runbook = f"[{alert.runbook}](../runbooks/{alert.runbook}.md)"
            lines.append(f"| `{alert.name}` | {alert.severity} | {alert.wait} | {words} | {runbook} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes all files."""
    PAGE.write_text(page(), encoding="utf-8")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
