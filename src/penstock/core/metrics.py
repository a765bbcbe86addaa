"""The metrics table: every name, type, unit, labels and help, once. `docs/reference/metrics.md` is made from it.

Names follow OpenTelemetry's GenAI conventions where these have one (`gen_ai.server.request.duration` is
`gen_ai_server_request_duration_seconds` in Prometheus), vLLM's names for what engines tell, `penstock_*` for the rest. It is one table and nothing else, and as long as there are metrics.
"""

from typing import Literal

import msgspec

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_TOKENS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0)


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric family."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    on: tuple[str, ...] = ("gateway",)  # processes that expose it


_PROCESS_ROWS: tuple[tuple[str, Literal["counter", "gauge"], str], ...] = (
    ("cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds."),
    ("resident_memory_bytes", "gauge", "Resident memory size in bytes."),
    ("virtual_memory_bytes", "gauge", "Virtual memory size in bytes."),
    ("start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds."),
    ("open_fds", "gauge", "Number of open file descriptors."),
    ("max_fds", "gauge", "Maximum number of open file descriptors."),
)

# As every Prometheus client names them; of the gateway by worker.
_PROCESS = tuple(
    Metric(name=f"process_{name}", kind=kind, help=text, on=("gateway", "control", "ship", "engine"))
    for name, kind, text in _PROCESS_ROWS
)

TABLE: tuple[Metric, ...] = (
    Metric(
        name="gen_ai_server_request_duration_seconds",
        kind="histogram",
        help="From the request's first byte to its reply's last.",
        labels=("gen_ai_request_model", "arm"),
        buckets=_SECONDS,
    ),
    Metric(
        name="gen_ai_server_time_to_first_token_seconds",
        kind="histogram",
        help="From the request's first byte to the first byte of the answer.",
        labels=("gen_ai_request_model", "arm"),
        buckets=_SECONDS,
    ),
    Metric(
        name="gen_ai_server_time_per_output_token_seconds",
        kind="histogram",
        help="Mean time between tokens after the first, of one reply.",
        labels=("gen_ai_request_model", "arm"),
        buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
    ),
    Metric(
        name="gen_ai_client_token_usage_tokens",
        kind="histogram",
        help="Tokens of one request by type (input, output).",
        labels=("gen_ai_request_model", "gen_ai_token_type"),
        buckets=_TOKENS,
    ),
    Metric(
        name="penstock_requests_total",
        kind="counter",
        help="Requests by route, arm, HTTP status and outcome.",
        labels=("route", "arm", "status", "outcome"),
    ),
    Metric(
        name="penstock_errors_total",
        kind="counter",
        help="Requests refused or failed, by error code.",
        labels=("code",),
    ),
    Metric(name="penstock_requests_in_flight", kind="gauge", help="Requests being answered now.", labels=()),
    Metric(name="penstock_connections", kind="gauge", help="Open client connections.", labels=()),
    Metric(
        name="penstock_edge_refusals_total",
        kind="counter",
        help="Requests and connections that were refused before they reached a route, by HTTP status.",
        labels=("status",),
    ),
    Metric(
        name="penstock_tls_failures_total",
        kind="counter",
        help="TLS handshakes that failed, and connections that broke TLS later.",
    ),
    Metric(
        name="penstock_tls_certificate_expires_timestamp_seconds",
        kind="gauge",
        help="When the certificate in use ends, in Unix seconds; only with TLS.",
    ),
    Metric(
        name="penstock_tls_renewal_failures_total",
        kind="counter",
        help="How often a changed certificate or key could not be used; the one before stays.",
    ),
    Metric(
        name="penstock_queue_waiting",
        kind="gauge",
        help="Requests that wait for a replica, by their tenant's class.",
        labels=("pool", "priority"),
    ),
    Metric(
        name="penstock_queue_wait_seconds",
        kind="histogram",
        help="How long those waited that had to and got a place; who found one free is not counted.",
        labels=("pool", "priority"),
        buckets=_SECONDS,
    ),
    Metric(
        name="penstock_queue_refusals_total",
        kind="counter",
        help="Requests that got no place: share (of the queue is used up), full, hopeless (time would not suffice), timeout.",
        labels=("pool", "reason"),
    ),
    Metric(name="penstock_cache_total", kind="counter", help="Response cache look-ups by result.", labels=("result",)),
    Metric(
        name="penstock_semantic_total",
        kind="counter",
        help="Look-ups by meaning: hit, empty (no question of the same facts is kept), far, differs (near, but of other facts), failed (no vector in time).",
        labels=("result",),
    ),
    Metric(
        name="penstock_semantic_embedding_seconds",
        kind="histogram",
        help="How long a vector took that the semantic cache asked for.",
        labels=(),
        buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
    ),
    Metric(
        name="penstock_shared_cache_failures_total",
        kind="counter",
        help="Times that the Redis of the shared cache did not answer in time.",
        labels=(),
    ),
    Metric(
        name="penstock_cascade_total",
        kind="counter",
        help="Answers of cascades: of the first model, of the second after it (escalated), of the second at once (control).",
        labels=("route", "result"),
    ),
    Metric(
        name="penstock_experiment_left_out_total",
        kind="counter",
        help="Requests on an experiment's route that took no part in it: not of its audience, held out (holdout), or in another part of its namespace.",
        labels=("experiment", "why"),
    ),
    Metric(
        name="penstock_sticky_given_up_total",
        kind="counter",
        help="Units and conversations that this worker let be drawn anew, because the table of those that keep their arm was full around them.",
        labels=(),
    ),
    Metric(
        name="penstock_shadow_total",
        kind="counter",
        help="Requests drawn for a copy to the candidate, by result: compared, failed (the candidate did), dropped_full (queue), dropped_busy (no free place at the candidate), dropped_late, dropped_ended, dropped_stopped, skipped_tools, skipped_choices, skipped_operation, skipped_cached.",
        labels=("experiment", "result"),
    ),
    Metric(
        name="penstock_shadow_cost_usd_total",
        kind="counter",
        help="Cost of copies and of the judge, which is charged to no tenant.",
        labels=("experiment",),
    ),
    Metric(name="penstock_shadow_waiting", kind="gauge", help="Copies that wait in this worker.", labels=()),
    Metric(
        name="penstock_interleave_total",
        kind="counter",
        help="Requests drawn for two answers, by result: shown, single_failed (the second did not answer), single_late, single_busy, single_apart (nothing to draft from), skipped_stream, skipped_tools, skipped_choices, skipped_operation, skipped_failed (the first did not answer).",
        labels=("experiment", "result"),
    ),
    Metric(
        name="penstock_interleave_cost_usd_total",
        kind="counter",
        help="Cost of second answers, which is charged to no tenant.",
        labels=("experiment",),
    ),
    Metric(
        name="penstock_coalesced_total",
        kind="counter",
        help="Requests answered by an equal one that was in flight.",
        labels=("route",),
    ),
    Metric(
        name="penstock_trimmed_tokens_total",
        kind="counter",
        help="Tokens of old turns that were left out, as estimated.",
        labels=("route",),
    ),
    Metric(
        name="penstock_prefix_cached_tokens_total",
        kind="counter",
        help="Prompt tokens that engines found in their prefix caches, as their usage told; the embedded engine is not told, and tells none.",
        labels=("route", "arm"),
    ),
    Metric(
        name="penstock_guard_findings_total",
        kind="counter",
        help="Findings of content rules.",
        labels=("rule", "action", "where"),
    ),
    Metric(
        name="penstock_cost_usd_total",
        kind="counter",
        help="Cost of answered requests.",
        labels=("tenant", "route", "version"),
    ),
    Metric(
        name="penstock_tenant_requests_total",
        kind="counter",
        help="Requests by whose they were and what answered; penstock_cost_usd_total by this is the cost of a request.",
        labels=("tenant", "route", "version"),
    ),
    Metric(
        name="penstock_phase_seconds_total",
        kind="counter",
        help="Where requests' time went: decode, admit (checks, screening, the queue), dispatch, wait (for the answer's first byte), answer, settle. Together the sum of gen_ai_server_request_duration_seconds.",
        labels=("route", "arm", "phase"),
    ),
    Metric(
        name="penstock_scored_nats_total",
        kind="counter",
        help="Negative log-probabilities of the tokens of answers that engines looked at; by penstock_scored_tokens_total it is the logarithm of perplexity.",
        labels=("route", "arm"),
    ),
    Metric(
        name="penstock_scored_tokens_total",
        kind="counter",
        help="Tokens of answers that engines looked at.",
        labels=("route", "arm"),
    ),
    Metric(
        name="penstock_perplexity",
        kind="histogram",
        help="Perplexity of an answer that the engine looked at.",
        labels=("route", "arm"),
        buckets=(1.01, 1.05, 1.1, 1.2, 1.35, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0),
    ),
    Metric(
        name="penstock_repetition_ratio",
        kind="histogram",
        help="Share of an answer's runs of three tokens that it had before (1 - distinct-3), of answers that the engine looked at.",
        labels=("route", "arm"),
        buckets=(0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
    ),
    Metric(
        name="penstock_answers_examined_total",
        kind="counter",
        help="Answers that engines looked at, by result: answered, or refused by the patterns declared for the model.",
        labels=("route", "arm", "result"),
    ),
    Metric(
        name="penstock_resumes_total",
        kind="counter",
        help="Streams that broke off and were gone on with by another replica (resumed), or could not be (failed).",
        labels=("route", "result"),
    ),
    Metric(name="penstock_stream_chunks_total", kind="counter", help="Server-sent events relayed.", labels=()),
    Metric(name="penstock_journal_bytes_total", kind="counter", help="Bytes written to the journal.", labels=()),
    Metric(name="penstock_journal_failures_total", kind="counter", help="Journal writes that failed.", labels=()),
    Metric(
        name="penstock_journal_lost_records_total",
        kind="counter",
        help="Records that could not be written to the journal.",
        labels=(),
    ),
    Metric(
        name="penstock_content_kept_total",
        kind="counter",
        help="Requests whose content was encrypted for the journal.",
        labels=(),
    ),
    Metric(
        name="penstock_content_lost_total",
        kind="counter",
        help="Requests whose content a policy wanted kept, and which could not be encrypted.",
        labels=(),
    ),
    Metric(
        name="penstock_snapshot_faults",
        kind="gauge",
        help="Entries of the Snapshot in use that cannot be used; what depends on them is refused.",
        labels=("kind",),
    ),
    Metric(name="penstock_ledger_up", kind="gauge", help="1 while the ledger of limits can be asked.", labels=()),
    Metric(name="penstock_snapshot_generation", kind="gauge", help="Generation of the Snapshot in use.", labels=()),
    Metric(
        name="penstock_replica_up", kind="gauge", help="1 while a replica takes requests.", labels=("pool", "replica")
    ),
    Metric(
        name="penstock_replica_state",
        kind="gauge",
        help="1 for the state that a replica is in: up, slow_start (it has come back), trial (its pause is over), out.",
        labels=("pool", "replica", "state"),
    ),
    Metric(
        name="penstock_replica_in_flight",
        kind="gauge",
        help="Requests that a replica works on.",
        labels=("pool", "replica"),
    ),
    Metric(
        name="penstock_replica_ejections_total",
        kind="counter",
        help="How often a replica was left out, by reason: unreachable, probe, failures (in a row), failing (a share of requests), slow.",
        labels=("pool", "replica", "reason"),
    ),
    Metric(
        name="penstock_affinity_total",
        kind="counter",
        help="Requests whose prompt's beginning was known: near went to that replica, far to another one, for load or health.",
        labels=("pool", "result"),
    ),
    Metric(
        name="penstock_retries_total",
        kind="counter",
        help="Further attempts: sent, or refused by the retry budget.",
        labels=("pool", "result"),
    ),
    Metric(
        name="penstock_hedges_total",
        kind="counter",
        help="Second copies: sent, won (they answered first), or refused by their budget.",
        labels=("pool", "result"),
    ),
    Metric(
        name="penstock_fallbacks_total",
        kind="counter",
        help="Requests that went to a pool that their route falls back to.",
        labels=("route", "pool"),
    ),
    Metric(
        name="penstock_ship_lag_bytes",
        kind="gauge",
        help="Journal bytes that a reader has not passed on yet.",
        labels=("reader",),
        on=("ship",),
    ),
    Metric(
        name="penstock_ship_records_total",
        kind="counter",
        help="Records that a reader has passed on.",
        labels=("reader",),
        on=("ship",),
    ),
    Metric(
        name="penstock_ship_failures_total",
        kind="counter",
        help="Batches that a reader's sink did not take.",
        labels=("reader",),
        on=("ship",),
    ),
    Metric(
        name="penstock_ship_damaged_bytes_total",
        kind="counter",
        help="Journal bytes that a reader stepped over because they hold no readable record.",
        labels=("reader",),
        on=("ship",),
    ),
    Metric(
        name="penstock_analytics_bytes",
        kind="gauge",
        help="Size of the analytical store's files.",
        on=("ship",),
    ),
    Metric(
        name="penstock_analytics_files",
        kind="gauge",
        help="Files of the analytical store.",
        on=("ship",),
    ),
    Metric(
        name="penstock_analytics_removed_rows_total",
        kind="counter",
        help="Rows that went from the analytical store: retention, the disk's bound, or an id that stood there twice (repeated).",
        labels=("reason",),
        on=("ship",),
    ),
    Metric(
        name="penstock_ship_dead_letters_total",
        kind="counter",
        help="Records that a reader's sink refused for good; they are in DATA/dead-letters.",
        labels=("reader",),
        on=("ship",),
    ),
    Metric(
        name="penstock_ship_retried_total",
        kind="counter",
        help="Records that a sink put off one by one, and that were sent again at once.",
        labels=("reader",),
        on=("ship",),
    ),
    Metric(
        name="penstock_ship_unsampled_total",
        kind="counter",
        help="Requests that leave no trace, because sampling leaves them out.",
        labels=("reader",),
        on=("ship",),
    ),
    Metric(
        name="penstock_host_cpus",
        kind="gauge",
        help="Processors of the machine.",
        on=("ship",),
    ),
    Metric(
        name="penstock_host_cpu_seconds_total",
        kind="counter",
        help="Processor time of the machine by mode: user, nice, system, idle, iowait (idle while work waits for a disk), irq, softirq, steal.",
        labels=("mode",),
        on=("ship",),
    ),
    Metric(
        name="penstock_host_load_average",
        kind="gauge",
        help="Mean number of tasks that ran or waited for a disk, over a minute.",
        on=("ship",),
    ),
    Metric(
        name="penstock_host_memory_bytes",
        kind="gauge",
        help="Memory of the machine: total, free, available, cached, swap_total, swap_free.",
        labels=("state",),
        on=("ship",),
    ),
    Metric(
        name="penstock_host_pressure_seconds_total",
        kind="counter",
        help="Time in which some tasks, or all that were not idle (full), waited for cpu, memory or io (PSI).",
        labels=("resource", "who"),
        on=("ship",),
    ),
    Metric(
        name="penstock_host_disk_bytes_total",
        kind="counter",
        help="Bytes read from and written to a disk.",
        labels=("device", "direction"),
        on=("ship",),
    ),
    Metric(
        name="penstock_host_disk_busy_seconds_total",
        kind="counter",
        help="Time in which a disk had something to do.",
        labels=("device",),
        on=("ship",),
    ),
    Metric(
        name="penstock_host_filesystem_bytes",
        kind="gauge",
        help="Size of the file system that holds a folder of Penstock's, and what is free of it.",
        labels=("folder", "state"),
        on=("ship",),
    ),
    Metric(
        name="penstock_gpu_info",
        kind="gauge",
        help="1 for each GPU, with its model and UUID.",
        labels=("gpu", "model", "uuid"),
        on=("ship",),
    ),
    Metric(
        name="penstock_gpu_utilization_ratio",
        kind="gauge",
        help="Share of the last moments in which a GPU computed, or its memory was read or written.",
        labels=("gpu", "part"),
        on=("ship",),
    ),
    Metric(
        name="penstock_gpu_memory_bytes",
        kind="gauge",
        help="Memory of a GPU: total, used.",
        labels=("gpu", "state"),
        on=("ship",),
    ),
    Metric(
        name="penstock_gpu_temperature_celsius",
        kind="gauge",
        help="Temperature of a GPU.",
        labels=("gpu",),
        on=("ship",),
    ),
    Metric(
        name="penstock_gpu_power_watts",
        kind="gauge",
        help="What a GPU draws.",
        labels=("gpu",),
        on=("ship",),
    ),
    Metric(
        name="penstock_gpu_energy_joules_total",
        kind="counter",
        help="What a GPU has drawn since its driver was loaded.",
        labels=("gpu",),
        on=("ship",),
    ),
    Metric(
        name="penstock_probe_timestamp_seconds",
        kind="gauge",
        help="When a version was probed last, in Unix seconds.",
        labels=("version",),
        on=("ship",),
    ),
    Metric(
        name="penstock_probe_requests",
        kind="gauge",
        help="Requests that were run through the version's weights again.",
        labels=("version",),
        on=("ship",),
    ),
    Metric(
        name="penstock_probe_perplexity",
        kind="gauge",
        help="Perplexity of the answers to these under the weights.",
        labels=("version",),
        on=("ship",),
    ),
    Metric(
        name="penstock_probe_attention_entropy_ratio",
        kind="gauge",
        help="Mean entropy of attention by that of even attention, by layer and over all.",
        labels=("version", "layer"),
        on=("ship",),
    ),
    Metric(
        name="penstock_probe_attention_sink_ratio",
        kind="gauge",
        help="Mean share of attention that the first token gets, by layer and over all.",
        labels=("version", "layer"),
        on=("ship",),
    ),
    Metric(
        name="vllm:num_requests_running",
        kind="gauge",
        help="Sequences that the pipeline works on.",
        labels=("model_name",),
        on=("engine",),
    ),
    Metric(
        name="vllm:num_requests_waiting",
        kind="gauge",
        help="Sequences that wait for a place in the pipeline.",
        labels=("model_name",),
        on=("engine",),
    ),
    Metric(
        name="vllm:kv_cache_usage_perc",
        kind="gauge",
        help="Share of the KV cache in use, between 0 and 1.",
        labels=("model_name",),
        on=("engine",),
    ),
    Metric(
        name="vllm:prefix_cache_queries_total",
        kind="counter",
        help="Prompt tokens looked up in the prefix cache.",
        labels=("model_name",),
        on=("engine",),
    ),
    Metric(
        name="vllm:prefix_cache_hits_total",
        kind="counter",
        help="Prompt tokens found in the prefix cache; the embedded engine is not told and counts none.",
        labels=("model_name",),
        on=("engine",),
    ),
    Metric(
        name="vllm:prompt_tokens_total",
        kind="counter",
        help="Prompt tokens processed.",
        labels=("model_name",),
        on=("engine",),
    ),
    Metric(
        name="vllm:generation_tokens_total",
        kind="counter",
        help="Tokens generated.",
        labels=("model_name",),
        on=("engine",),
    ),
    Metric(
        name="vllm:request_success_total",
        kind="counter",
        help="Sequences that ended, by reason (stop, length, abort).",
        labels=("model_name", "finished_reason"),
        on=("engine",),
    ),
    Metric(
        name="vllm:time_to_first_token_seconds",
        kind="histogram",
        help="From the request's first byte to its first token.",
        labels=("model_name",),
        buckets=_SECONDS,
        on=("engine",),
    ),
    Metric(
        name="vllm:inter_token_latency_seconds",
        kind="histogram",
        help="From one token of a sequence to the next.",
        labels=("model_name",),
        buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
        on=("engine",),
    ),
    Metric(
        name="vllm:e2e_request_latency_seconds",
        kind="histogram",
        help="From the request's first byte to its last token.",
        labels=("model_name",),
        buckets=_SECONDS,
        on=("engine",),
    ),
    Metric(
        name="penstock_engine_restarts_total",
        kind="counter",
        help="Pipeline workers that died and were replaced.",
        labels=("model_name",),
        on=("engine",),
    ),
    Metric(
        name="penstock_control_requests_total",
        kind="counter",
        help="Requests to the control plane by method, route and HTTP status.",
        labels=("method", "route", "status"),
        on=("control",),
    ),
    Metric(
        name="penstock_control_request_duration_seconds",
        kind="histogram",
        help="How long the control plane took to answer; long polls are left out.",
        labels=("method", "route"),
        buckets=_SECONDS,
        on=("control",),
    ),
    Metric(
        name="penstock_control_snapshot_generation",
        kind="gauge",
        help="Generation of the newest Snapshot.",
        on=("control",),
    ),
    Metric(
        name="penstock_control_gateways",
        kind="gauge",
        help="Gateway workers that reported within the last minute.",
        on=("control",),
    ),
    Metric(
        name="penstock_alerts_firing",
        kind="gauge",
        help="Alerts that Alertmanager told of, or the log alerts, and that are not over, by severity: page, ticket, other.",
        labels=("severity",),
        on=("control",),
    ),
    Metric(
        name="penstock_log_alerts_firing",
        kind="gauge",
        help="Log alerts that control raised from the records and that are not over, by alert: how many groups (tenants, codes, workers).",
        labels=("alert",),
        on=("control",),
    ),
    Metric(
        name="penstock_key_expires_timestamp_seconds",
        kind="gauge",
        help="When the next of a tenant's keys ends, in Unix seconds; of keys for the control API alone the tenant is empty.",
        labels=("tenant",),
        on=("control",),
    ),
    Metric(
        name="penstock_drift_alarm",
        kind="gauge",
        help="1: a signal of a model and arm has changed against its reference (against=itself), or users say less good of it than of the version before (against=before); 0: it is watched.",
        labels=("model", "arm", "signal", "against"),
        on=("control",),
    ),
    Metric(
        name="penstock_drift_psi",
        kind="gauge",
        help="Population stability index of yesterday (UTC) against the reference.",
        labels=("model", "arm", "signal"),
        on=("control",),
    ),
    Metric(
        name="penstock_drift_shifted",
        kind="gauge",
        help="1: yesterday was another population than the reference, by its index and not by chance.",
        labels=("model", "arm", "signal"),
        on=("control",),
    ),
    Metric(
        name="penstock_evaluator_results_total",
        kind="counter",
        help="Answers that an evaluator has drawn, by what became of them, without those that wait for a pair; the words are in docs/evaluators.md.",
        labels=("evaluator", "result"),
        on=("control",),
    ),
    Metric(
        name="penstock_evaluator_behind_seconds",
        kind="gauge",
        help="How old the oldest request is that an evaluator has not looked at.",
        labels=("evaluator",),
        on=("control",),
    ),
    Metric(
        name="penstock_evaluator_calls_total",
        kind="counter",
        help="Calls of an evaluator to the model that it asks: ok, error, or refused (over its budget).",
        labels=("evaluator", "result"),
        on=("control",),
    ),
    Metric(
        name="penstock_evaluator_cost_usd_total",
        kind="counter",
        help="What an evaluator's calls have cost, in US dollars.",
        labels=("evaluator",),
        on=("control",),
    ),
    Metric(
        name="penstock_canary_share",
        kind="gauge",
        help="The share of the traffic that a running canary gets.",
        labels=("model", "version"),
        on=("control",),
    ),
    Metric(
        name="penstock_canary_expires_timestamp_seconds",
        kind="gauge",
        help="When gateways drop the share of a running canary unless it is renewed, in Unix seconds.",
        labels=("model", "version"),
        on=("control",),
    ),
    Metric(
        name="penstock_canary_evidence_ratio",
        kind="gauge",
        help="The evidence of a guardrail against a running canary, 1 being the limit that undoes it.",
        labels=("model", "version", "guardrail"),
        on=("control",),
    ),
    Metric(
        name="penstock_canaries_ended_total",
        kind="counter",
        help="Canaries that have ended: promoted, rolled_back for harm, or aborted by hand.",
        labels=("model", "result"),
        on=("control",),
    ),
    Metric(
        name="penstock_evaluations",
        kind="gauge",
        help="Evaluations of versions: queued, running, done, failed, cancelled.",
        labels=("state",),
        on=("control",),
    ),
    Metric(
        name="penstock_gates_judged_total",
        kind="counter",
        help="Revisions that an environment with gates let in: passed, or overridden by an administrator.",
        labels=("environment", "result"),
        on=("control",),
    ),
    Metric(
        name="penstock_experiments_ended_total",
        kind="counter",
        help="Experiments that have ended, canaries among them: better, worse, harm (a guardrail), no_difference, inconclusive, or by_hand.",
        labels=("route", "result"),
        on=("control",),
    ),
    Metric(
        name="penstock_experiment_blocked",
        kind="gauge",
        help="1 while a running experiment says nothing because its arms' sizes contradict their shares.",
        labels=("experiment", "route"),
        on=("control",),
    ),
    Metric(
        name="penstock_experiment_dose_ratio",
        kind="gauge",
        help="The share of requests that a second arm answers now, where a budget's pace has changed it.",
        labels=("experiment", "route"),
        on=("control",),
    ),
    Metric(
        name="penstock_experiment_started_timestamp_seconds",
        kind="gauge",
        help="When a running experiment began, in Unix seconds.",
        labels=("experiment", "route"),
        on=("control",),
    ),
    Metric(
        name="penstock_experiment_units",
        kind="gauge",
        help="Units that a running experiment has counted, by arm, as of its last evaluation.",
        labels=("experiment", "route", "arm"),
        on=("control",),
    ),
    Metric(
        name="penstock_sessions_total",
        kind="counter",
        help="Sessions that began: requests of one visitor (the client's session, else its user) with no pause over 30 minutes between them.",
        labels=("tenant", "route", "version"),
        on=("control",),
    ),
    Metric(
        name="penstock_engaged_sessions_total",
        kind="counter",
        help="Of these, sessions with a second answered request.",
        labels=("tenant", "route", "version"),
        on=("control",),
    ),
    Metric(
        name="penstock_session_requests_total",
        kind="counter",
        help="Answered requests of sessions.",
        labels=("tenant", "route", "version"),
        on=("control",),
    ),
    Metric(
        name="penstock_session_seconds_total",
        kind="counter",
        help="Time from the first to the latest request of sessions.",
        labels=("tenant", "route", "version"),
        on=("control",),
    ),
    Metric(
        name="penstock_events_total",
        kind="counter",
        help="Events told by POST /v1/events.",
        labels=("tenant", "route", "version"),
        on=("control",),
    ),
    Metric(
        name="penstock_conversions_total",
        kind="counter",
        help="Events named conversion: the first of a request, and all that are about a user.",
        labels=("tenant", "route", "version"),
        on=("control",),
    ),
    Metric(
        name="penstock_feedback_total",
        kind="counter",
        help="Feedback and preferences told of requests.",
        labels=("tenant", "route", "version"),
        on=("control",),
    ),
    Metric(
        name="penstock_reports_total",
        kind="counter",
        help="Reports told of requests.",
        labels=("tenant", "route", "version"),
        on=("control",),
    ),
    *_PROCESS,
    *(
        msgspec.structs.replace(
            entry,
            name=f"penstock_engine_worker_{entry.name}",
            help=f"Of the process that computes: {entry.help}",
            on=("engine",),
        )
        for entry in _PROCESS
    ),
)


def metric(name: str) -> Metric:
    """The table's entry for `name`.

    Raises:
        KeyError: if the table has none: a metric is declared before it is used.
    """
    for entry in TABLE:
        if entry.name == name:
            return entry
    raise KeyError(name)
