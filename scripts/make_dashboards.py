"""Writes `deploy/grafana/dashboards/*.json`. Run `python scripts/make_dashboards.py`.

A test compares the files with what this makes, and asks a real Prometheus every query after a short load.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, QueryVariable, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, VariableRefresh
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
_WHOLE = 24  # Grafana's columns


class Query(msgspec.Struct, frozen=True):
    """One query, and how its series are called: words with `{{label}}`."""

    expr: str
    legend: str = ""


class Panel(msgspec.Struct, frozen=True):
    """One panel. `unit` is one of Grafana's; a `figure` shows the newest value alone; `about` says how to read it."""

    title: str
    unit: str
    queries: tuple[Query, ...]
    about: str = ""
    figure: bool = False


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """One dashboard: rows of panels, and variables with the metric and label that give their values."""

    uid: str
    title: str
    about: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    variables: tuple[tuple[str, str], ...] = ()


def _p(title: str, unit: str, *queries: tuple[str, str] | str, about: str = "", figure: bool = False) -> Panel:
    made = tuple(Query(q) if isinstance(q, str) else Query(*q) for q in queries)
    return Panel(title, unit, made, about, figure)


def _quantiles(name: str, labels: str, chosen: str = "", legend: str = "") -> tuple[tuple[str, str], ...]:
    by = f"le, {labels}" if labels else "le"
    return tuple(
        (
            f"histogram_quantile({q}, sum by ({by}) (rate({name}_bucket{chosen}[$__rate_interval])))",
            f"{legend} p{int(q * 100)}".strip(),
        )
        for q in (0.5, 0.95, 0.99)
    )


def _mean(name: str, by: str, chosen: str = "") -> str:
    rates = [f"sum by ({by}) (rate({name}_{part}{chosen}[$__rate_interval]))" for part in ("sum", "count")]
    return " / ".join(rates)


DURATION = "gen_ai_server_request_duration_seconds"
FIRST = "gen_ai_server_time_to_first_token_seconds"
EACH_TOKEN = "gen_ai_server_time_per_output_token_seconds"
USAGE = "gen_ai_client_token_usage_tokens"
ROUTE = '{gen_ai_request_model=~"$route"}'
BY_ROUTE = '{route=~"$route"}'

OVERVIEW = Board(
    uid="penstock-overview",
    title="Penstock: overview",
    about="Whether all is well, and where to look if not.",
    rows=(
        (
            "Now",
            (
                _p("Requests", "reqps", "sum(rate(penstock_requests_total[$__rate_interval]))", figure=True),
                _p("Failed", "percentunit", "sum(route:penstock_failures:rate5m) / sum(route:penstock_requests:rate5m)", figure=True),
                _p("First token, p95", "s", _quantiles(FIRST, "")[1][0], figure=True),
                _p("Cost an hour", "currencyUSD", "sum(rate(penstock_cost_usd_total[$__rate_interval])) * 3600", figure=True),
                _p("Alerts that fire", "none", "sum(penstock_alerts_firing)", figure=True),
                _p("Replicas up", "none", "sum(max by (pool, replica) (penstock_replica_up))", figure=True),
            ),
        ),
        (
            "Requests",
            (
                _p("Requests by outcome", "reqps", ("sum by (route, outcome) (rate(penstock_requests_total[$__rate_interval]))", "{{route}} {{outcome}}")),
                _p("Errors by code", "reqps", ("sum by (code) (rate(penstock_errors_total[$__rate_interval]))", "{{code}}")),
                _p("Duration", "s", *_quantiles(DURATION, "")),
                _p("Time to first token", "s", *_quantiles(FIRST, "")),
                _p("Share of the error budget's rate", "none", ("route:penstock_failures:rate1h / route:penstock_requests:rate1h / 0.005", "{{route}}"), about="1: the budget of 0.5 % is used up in just 30 days. 14.4 pages."),
                _p("Tokens", "none", (f"sum by (gen_ai_token_type) (rate({USAGE}_sum[$__rate_interval]))", "{{gen_ai_token_type}}"), about="Tokens a second."),
            ),
        ),
        (
            "Places",
            (
                _p("In flight", "none", ("sum(penstock_requests_in_flight)", "requests"), ("sum(penstock_connections)", "connections")),
                _p("Waiting", "none", ("sum by (pool, priority) (penstock_queue_waiting)", "{{pool}} {{priority}}")),
                _p("Replicas by state", "none", ("sum by (pool, state) (max by (pool, replica, state) (penstock_replica_state))", "{{pool}} {{state}}")),
                _p("Retries and refusals", "reqps", ("sum by (pool, result) (rate(penstock_retries_total[$__rate_interval]))", "retry {{result}} {{pool}}"), ("sum by (pool, reason) (rate(penstock_queue_refusals_total[$__rate_interval])) or vector(0)", "no place {{reason}} {{pool}}")),
            ),
        ),
        (
            "The house",
            (
                _p("Behind the journal", "bytes", ("max by (reader) (penstock_ship_lag_bytes)", "{{reader}}")),
                _p("Journal", "Bps", ("sum(rate(penstock_journal_bytes_total[$__rate_interval]))", "written"), ("sum(increase(penstock_journal_lost_records_total[$__rate_interval]))", "records lost")),
                _p("Snapshot", "none", ("max(penstock_control_snapshot_generation)", "control"), ("penstock_snapshot_generation", "{{worker}}"), ("sum by (kind) (penstock_snapshot_faults)", "faults {{kind}}")),
                _p("Control", "s", *_quantiles("penstock_control_request_duration_seconds", "")),
                _p("CPU", "none", ("sum by (job, instance) (rate(process_cpu_seconds_total[$__rate_interval]))", "{{job}} {{instance}}"), about="Cores in use."),
                _p("Memory", "bytes", ("sum by (job, instance) (process_resident_memory_bytes)", "{{job}} {{instance}}")),
                _p("Open files", "percentunit", ("max by (job, instance) (process_open_fds / process_max_fds)", "{{job}} {{instance}}")),
                _p("Scraped", "none", ("sum by (job) (up)", "{{job}}")),
            ),
        ),
        (
            "The machine",
            (
                _p("Processors", "percentunit", ('sum by (instance, mode) (rate(penstock_host_cpu_seconds_total{mode!="idle"}[$__rate_interval])) / on (instance) group_left () penstock_host_cpus', "{{instance}} {{mode}}"), about="iowait is time in which a processor was idle while work waited for a disk."),
                _p("Waiting", "percentunit", ("sum by (instance, resource, who) (rate(penstock_host_pressure_seconds_total[$__rate_interval]))", "{{instance}} {{resource}} {{who}}"), about="The share of time in which some tasks, or all, waited (PSI)."),
                _p("Memory of the machine", "bytes", ("max by (instance, state) (penstock_host_memory_bytes)", "{{instance}} {{state}}")),
                _p("Disks", "Bps", ("sum by (instance, device, direction) (rate(penstock_host_disk_bytes_total[$__rate_interval]))", "{{instance}} {{device}} {{direction}}")),
                _p("Free of the data folder's file system", "percentunit", ('penstock_host_filesystem_bytes{state="free"} / on (instance, folder) penstock_host_filesystem_bytes{state="total"}', "{{instance}} {{folder}}")),
            ),
        ),
    ),
)  # fmt: skip

MODEL = Board(
    uid="penstock-model",
    title="Penstock: model",
    about="One route: its traffic, times, lengths, cost, and its arms side by side.",
    variables=(("route", 'label_values(penstock_requests_total{route!=""}, route)'),),
    rows=(
        (
            "Traffic",
            (
                _p("Requests by arm and status", "reqps", (f"sum by (arm, status) (rate(penstock_requests_total{BY_ROUTE}[$__rate_interval]))", "{{arm}} {{status}}")),
                _p("Failed", "percentunit", (f"route:penstock_failures:rate5m{BY_ROUTE} / route:penstock_requests:rate5m{BY_ROUTE}", "{{route}}")),
                _p("Answered without its first model", "reqps", (f"sum by (route, pool) (rate(penstock_fallbacks_total{BY_ROUTE}[$__rate_interval])) or vector(0)", "fell back {{pool}}"), (f"sum by (route, result) (rate(penstock_cascade_total{BY_ROUTE}[$__rate_interval])) or vector(0)", "cascade {{result}}"), (f"sum by (route, result) (rate(penstock_resumes_total{BY_ROUTE}[$__rate_interval])) or vector(0)", "stream {{result}}")),
                _p("Cache", "reqps", ("sum by (result) (rate(penstock_cache_total[$__rate_interval]))", "{{result}}"), about="Of all routes."),
            ),
        ),
        (
            "Times",
            (
                _p("Duration", "s", *_quantiles(DURATION, "arm", ROUTE, "{{arm}}")),
                _p("Time to first token", "s", *_quantiles(FIRST, "arm", ROUTE, "{{arm}}")),
                _p("Time per output token", "s", *_quantiles(EACH_TOKEN, "arm", ROUTE, "{{arm}}")),
                _p("First token later than 2.5 s", "percentunit", (f"route:penstock_late_first_tokens:rate5m{BY_ROUTE} / route:penstock_first_tokens:rate5m{BY_ROUTE}", "{{route}}")),
            ),
        ),
        (
            "Quality",
            (
                _p("Where the time goes", "s", (f"sum by (phase) (rate(penstock_phase_seconds_total{BY_ROUTE}[$__rate_interval])) / scalar(sum(rate({DURATION}_count{ROUTE}[$__rate_interval])))", "{{phase}}"), about="Seconds of a request, by phase; together its mean duration."),
                _p("Perplexity", "none", (f"exp(sum by (route, arm) (rate(penstock_scored_nats_total{BY_ROUTE}[$__rate_interval])) / sum by (route, arm) (rate(penstock_scored_tokens_total{BY_ROUTE}[$__rate_interval])))", "{{route}} {{arm}}"), about="Of the answers that engines look at, by token."),
                _p("Refusals and repetition", "percentunit", (f'sum by (route) (rate(penstock_answers_examined_total{{route=~"$route",result="refused"}}[$__rate_interval])) / sum by (route) (rate(penstock_answers_examined_total{BY_ROUTE}[$__rate_interval]))', "refused {{route}}"), (_mean("penstock_repetition_ratio", "route", BY_ROUTE), "repeated {{route}}"), about="Of the answers that engines look at. Repetition is the share of runs of three tokens that an answer had before."),
                _p("Attention", "percentunit", ('max by (version) (penstock_probe_attention_sink_ratio{layer="all"})', "first token {{version}}"), ('max by (version) (penstock_probe_attention_entropy_ratio{layer="all"})', "entropy {{version}}"), about="As penstock probe found it last."),
            ),
        ),
        (
            "Lengths and cost",
            (
                _p("Mean length", "none", (_mean(USAGE, "gen_ai_token_type", ROUTE), "{{gen_ai_token_type}}"), about="Tokens of a request."),
                _p("Tokens", "none", (f"sum by (gen_ai_token_type) (rate({USAGE}_sum{ROUTE}[$__rate_interval]))", "{{gen_ai_token_type}}"), about="Tokens a second."),
                _p("Cost of a request", "currencyUSD", (f"sum by (route) (rate(penstock_cost_usd_total{BY_ROUTE}[$__rate_interval])) / sum by (route) (rate(penstock_requests_total{BY_ROUTE}[$__rate_interval]))", "{{route}}")),
                _p("Saved tokens", "none", (f"sum by (route) (rate(penstock_trimmed_tokens_total{BY_ROUTE}[$__rate_interval])) or vector(0)", "trimmed {{route}}"), (f"sum by (route) (rate(penstock_coalesced_total{BY_ROUTE}[$__rate_interval])) or vector(0)", "requests coalesced {{route}}")),
            ),
        ),
        (
            "Drift",
            (
                _p("Signals that have changed", "none", ("sum by (model, arm, signal, against) (penstock_drift_alarm) > 0 or vector(0)", "{{model}} {{arm}} {{signal}} against {{against}}"), about="Of all models: 1 while it is so."),
                _p("Yesterday against the reference", "none", ("max by (model, arm, signal) (penstock_drift_psi) or vector(0)", "{{model}} {{arm}} {{signal}}"), about="Population stability index, of all models: 0.25 is a major shift."),
            ),
        ),
    ),
)  # fmt: skip

_TENANT = '{tenant=~"$tenant"}'
TENANT = Board(
    uid="penstock-tenant",
    title="Penstock: tenant",
    about="What a tenant spends, on what, against what it did before.",
    variables=(("tenant", "label_values(penstock_cost_usd_total, tenant)"),),
    rows=(
        (
            "Cost",
            (
                _p("Cost an hour", "currencyUSD", (f"sum by (tenant) (rate(penstock_cost_usd_total{_TENANT}[$__rate_interval])) * 3600", "{{tenant}}")),
                _p("Cost by route, an hour", "currencyUSD", (f"sum by (tenant, route) (rate(penstock_cost_usd_total{_TENANT}[$__rate_interval])) * 3600", "{{tenant}} {{route}}")),
                _p("Cost of the time shown", "currencyUSD", (f"sum by (tenant) (increase(penstock_cost_usd_total{_TENANT}[$__range]))", "{{tenant}}"), figure=True),
                _p("Share of all", "percentunit", (f"sum by (tenant) (rate(penstock_cost_usd_total{_TENANT}[$__rate_interval])) / scalar(sum(rate(penstock_cost_usd_total[$__rate_interval])))", "{{tenant}}")),
                _p("Against the week", "none", (f"tenant_route:penstock_cost_usd:rate1h{_TENANT} / avg_over_time(tenant_route:penstock_cost_usd:rate1h{_TENANT}[7d])", "{{tenant}} {{route}}"), about="The last hour by the mean of seven days; 3 is an alert."),
                _p("The ten that spend most, an hour", "currencyUSD", ("topk(10, sum by (tenant) (rate(penstock_cost_usd_total[$__rate_interval]))) * 3600", "{{tenant}}")),
                _p("Cost of a request", "currencyUSD", (f"sum by (tenant, route, version) (rate(penstock_cost_usd_total{_TENANT}[$__rate_interval])) / sum by (tenant, route, version) (rate(penstock_tenant_requests_total{_TENANT}[$__rate_interval]))", "{{tenant}} {{route}} {{version}}")),
            ),
        ),
        (
            "People",
            (
                _p("Sessions, an hour", "none", (f"sum by (tenant, route) (rate(penstock_sessions_total{_TENANT}[$__rate_interval])) * 3600", "{{tenant}} {{route}}"), about="docs/metrics.md says what a session is."),
                _p("Engaged", "percentunit", (f"sum by (tenant, route) (penstock_engaged_sessions_total{_TENANT}) / sum by (tenant, route) (penstock_sessions_total{_TENANT})", "{{tenant}} {{route}}"), about="Of sessions since ever, those with a second answer."),
                _p("Conversions", "percentunit", (f"sum by (tenant, route) (penstock_conversions_total{_TENANT}) / sum by (tenant, route) (penstock_sessions_total{_TENANT})", "{{tenant}} {{route}}"), about="Of sessions since ever."),
                _p("Said of answers, an hour", "none", (f"sum by (tenant) (rate(penstock_feedback_total{_TENANT}[$__rate_interval])) * 3600", "feedback {{tenant}}"), (f"sum by (tenant) (rate(penstock_reports_total{_TENANT}[$__rate_interval])) * 3600", "reports {{tenant}}")),
            ),
        ),
    ),
)  # fmt: skip

SAFETY = Board(
    uid="penstock-safety",
    title="Penstock: safety",
    about="What content rules found, and who was refused.",
    rows=(
        (
            "Content rules",
            (
                _p("Findings by rule", "reqps", ("sum by (rule) (rate(penstock_guard_findings_total[$__rate_interval]))", "{{rule}}")),
                _p("Findings by what was done", "reqps", ("sum by (action, where) (rate(penstock_guard_findings_total[$__rate_interval]))", "{{action}} {{where}}")),
                _p("Findings of a request", "none", ("sum(rate(penstock_guard_findings_total[$__rate_interval])) / sum(rate(penstock_requests_total[$__rate_interval]))", "mean")),
                _p("Against the hours before", "none", ("sum by (rule) (rate(penstock_guard_findings_total[10m])) / sum by (rule) (rate(penstock_guard_findings_total[6h]))", "{{rule}}"), about="5 is an alert."),
            ),
        ),
        (
            "Refusals",
            (
                _p("Refused by code", "reqps", ("sum by (code) (rate(penstock_errors_total[$__rate_interval]))", "{{code}}")),
                _p("Refused by status", "reqps", ('sum by (status) (rate(penstock_requests_total{outcome="refused"}[$__rate_interval]))', "{{status}}")),
                _p("Refused at the edge", "reqps", ("sum by (status) (rate(penstock_edge_refusals_total[$__rate_interval])) or vector(0)", "{{status}}"), ("sum(rate(penstock_tls_failures_total[$__rate_interval])) or vector(0)", "TLS")),
                _p("What fails closed", "none", ("sum by (kind) (penstock_snapshot_faults)", "{{kind}}"), ("1 - min(penstock_ledger_up)", "ledger away")),
            ),
        ),
    ),
)  # fmt: skip

_MODEL_NAME = '{model_name=~"$model"}'


def _engine(name: str, legend: str = "{{model_name}} {{instance}}") -> tuple[str, str]:
    return f"{name}{_MODEL_NAME}", legend


def _engine_rate(name: str, by: str = "model_name") -> str:
    return f"sum by ({by}) (rate({name}{_MODEL_NAME}[$__rate_interval]))"


ENGINE = Board(
    uid="penstock-engine",
    title="Penstock: engine",
    about="The engines: what they work on, how fast, and what they use.",
    variables=(("model", "label_values(vllm:num_requests_running, model_name)"),),
    rows=(
        (
            "Work",
            (
                _p("Running", "none", _engine("vllm:num_requests_running")),
                _p("Waiting", "none", _engine("vllm:num_requests_waiting")),
                _p("KV cache", "percentunit", _engine("vllm:kv_cache_usage_perc")),
                _p("Ended", "reqps", (_engine_rate("vllm:request_success_total", "model_name, finished_reason"), "{{model_name}} {{finished_reason}}")),
                _p("Workers that died", "none", (f"sum by (model_name) (increase(penstock_engine_restarts_total{_MODEL_NAME}[$__rate_interval]))", "{{model_name}}")),
            ),
        ),
        (
            "Speed",
            (
                _p("Tokens", "none", (_engine_rate("vllm:generation_tokens_total"), "{{model_name}} out"), (_engine_rate("vllm:prompt_tokens_total"), "{{model_name}} in"), about="Tokens a second."),
                _p("Tokens of a running sequence", "none", (f"{_engine_rate('vllm:generation_tokens_total')} / clamp_min(sum by (model_name) (avg_over_time(vllm:num_requests_running{_MODEL_NAME}[$__rate_interval])), 0.01)", "{{model_name}}"), about="Tokens a second; half of the day before is an alert."),
                _p("Time to first token", "s", *_quantiles("vllm:time_to_first_token_seconds", "model_name", _MODEL_NAME, "{{model_name}}")),
                _p("Between tokens", "s", *_quantiles("vllm:inter_token_latency_seconds", "model_name", _MODEL_NAME, "{{model_name}}")),
                _p("Whole sequences", "s", *_quantiles("vllm:e2e_request_latency_seconds", "model_name", _MODEL_NAME, "{{model_name}}")),
            ),
        ),
        (
            "What it uses",
            (
                _p("CPU", "none", ('sum by (pool, instance) (rate(process_cpu_seconds_total{job="engine"}[$__rate_interval]))', "{{pool}} server"), ("sum by (pool, instance) (rate(penstock_engine_worker_process_cpu_seconds_total[$__rate_interval]))", "{{pool}} worker"), about="Cores in use."),
                _p("Memory", "bytes", ('process_resident_memory_bytes{job="engine"}', "{{pool}} server"), ("penstock_engine_worker_process_resident_memory_bytes", "{{pool}} worker")),
                _p("Open files", "none", ('process_open_fds{job="engine"}', "{{pool}} server"), ("penstock_engine_worker_process_open_fds", "{{pool}} worker")),
            ),
        ),
    ),
)  # fmt: skip

_ARM = '{route=~"$route",arm!=""}'
_BAD_ARM = '{route=~"$route",arm!="",outcome=~"error|truncated|crashed"}'
_ARM_TIMES = '{gen_ai_request_model=~"$route",arm!=""}'
_RUNS = '{route=~"$route"}'
_ARM_RATE = f"sum by (arm) (rate(penstock_requests_total{_ARM}[$__rate_interval]))"
EXPERIMENT = Board(
    uid="penstock-experiment",
    title="Penstock: experiment",
    about="How the arms of running experiments do, second by second. What follows from it, the console says: these are no tests. On a route at most one runs.",
    variables=(("route", "label_values(penstock_experiment_started_timestamp_seconds, route)"),),
    rows=(
        (
            "Units",
            (
                _p("Units by arm", "none", (f"penstock_experiment_units{_RUNS}", "{{experiment}}/{{arm}}")),
                _p("Share of the units", "percentunit", (f"penstock_experiment_units{_RUNS} / on (experiment) group_left () sum by (experiment) (penstock_experiment_units)", "{{experiment}}/{{arm}}")),
                _p("Runs for", "s", (f"time() - penstock_experiment_started_timestamp_seconds{_RUNS}", "{{experiment}}"), figure=True),
                _p("Requests by arm", "reqps", (_ARM_RATE, "{{arm}}")),
            ),
        ),
        (
            "Arms side by side",
            (
                _p("Failed", "percentunit", (f"(sum by (arm) (rate(penstock_requests_total{_BAD_ARM}[$__rate_interval])) or 0 * {_ARM_RATE}) / {_ARM_RATE}", "{{arm}}")),
                _p("Duration", "s", *_quantiles(DURATION, "arm", _ARM_TIMES, "{{arm}}")),
                _p("Time to first token", "s", *_quantiles(FIRST, "arm", _ARM_TIMES, "{{arm}}")),
                _p("Time per output token", "s", *_quantiles(EACH_TOKEN, "arm", _ARM_TIMES, "{{arm}}")),
            ),
        ),
    ),
)  # fmt: skip

BOARDS = (OVERVIEW, MODEL, TENANT, EXPERIMENT, SAFETY, ENGINE)


def _panel(panel: Panel, width: int) -> stat.Panel | timeseries.Panel:
    made: stat.Panel | timeseries.Panel
    if panel.figure:
        made = stat.Panel().height(4)
    else:
        legend = common.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST)
        made = (
            timeseries.Panel()
            .height(8)
            .min(0)
            .legend(legend.placement(LegendPlacement.BOTTOM))
            .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        )
    made = made.title(panel.title).unit(panel.unit).datasource(SOURCE).span(width).description(panel.about)
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        made = made.with_target(
            prometheus.Dataquery()
            .expr(query.expr)
            .legend_format(query.legend)
            .ref_id(letter)
            .range()
            .format(PromQueryFormat.TIME_SERIES)
        )
    return made


def _width(panels: Sequence[Panel]) -> int:
    return _WHOLE // len(panels) if all(panel.figure for panel in panels) else _WHOLE // 2


def text(board: Board) -> str:
    """The dashboard as Grafana reads it."""
    made = (
        Dashboard(board.title)
        .uid(board.uid)
        .description(board.about)
        .tags(["penstock"])
        .refresh("10s")
        .time("now-30m", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
    )
    for name, query in board.variables:
        variable = QueryVariable(name).label(name).query(query).datasource(SOURCE).include_all(True).multi(True)
        made = made.with_variable(variable.all_value(".*").refresh(VariableRefresh.ON_TIME_RANGE_CHANGED))
    for title, panels in board.rows:
        made = made.with_row(Row(title))
        for panel in panels:
            made = made.with_panel(_panel(panel, _width(panels)))
    return str(JSONEncoder(sort_keys=True, indent=1).encode(made.build())) + "\n"


def files() -> dict[str, str]:
    """The text of each file, by its name."""
    return {f"{board.uid}.json": text(board) for board in BOARDS}


def main() -> None:
    """Writes all files, and removes what is no longer made."""
    made = files()
    for old in FOLDER.glob("*.json"):
        if old.name not in made:
            old.unlink()
    for name, content in made.items():
        (FOLDER / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
