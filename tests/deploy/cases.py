"""For each alert: series with which it fires, and series that come near and with which it does not; in promtool's notation.

A step is a minute. `a+bxn` begins at a and adds b n times.
"""

import msgspec


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Series with their values, and when (in minutes) to look."""

    series: dict[str, str]
    at: int


def _requests(good: str, bad: str, outcome: str = 'outcome="error",status="200"') -> dict[str, str]:
    return {
        'penstock_requests_total{route="r",outcome="ok",status="200",worker="w"}': good,
        f'penstock_requests_total{{route="r",{outcome},worker="w"}}': bad,
    }


def _first_tokens(every: str, in_time: str) -> dict[str, str]:
    name = "gen_ai_server_time_to_first_token_seconds"
    return {
        f'{name}_count{{gen_ai_request_model="r",arm="",worker="w"}}': every,
        f'{name}_bucket{{gen_ai_request_model="r",arm="",worker="w",le="2.5"}}': in_time,
    }


def _one(series: str, values: str, at: int) -> Case:
    return Case(series={series: values}, at=at)


WAITING = 'penstock_queue_waiting{pool="p",priority="standard",worker="w"}'
TOKENS = 'vllm:generation_tokens_total{model_name="m"}'
RUNNING = 'vllm:num_requests_running{model_name="m"}'
COST = 'penstock_cost_usd_total{tenant="t",route="r",worker="w"}'
FOUND = 'penstock_guard_findings_total{rule="pii",action="mask",where="input",worker="w"}'
UP = 'penstock_replica_up{pool="p",replica="%s",worker="%s"}'
EXPIRES = 'penstock_tls_certificate_expires_timestamp_seconds{instance="g",worker="w"}'
ENDS = 'penstock_key_expires_timestamp_seconds{tenant="t"}'
STARTED = 'penstock_experiment_started_timestamp_seconds{experiment="e"}'
SCORES = 'penstock_evaluator_results_total{evaluator="e",result="scored"}'
FAILED_SCORES = 'penstock_evaluator_results_total{evaluator="e",result="failed"}'
UNITS = 'penstock_experiment_units{experiment="e",arm="a"}'
FAILURES = 'penstock_ship_failures_total{instance="s",reader="control"}'
SHIPPED = 'penstock_ship_records_total{instance="s",reader="control"}'

DRIFTED = 'penstock_drift_alarm{model="m",arm="",signal="%s",against="%s"}'

# Alert: (fires, does not fire).
CASES: dict[str, tuple[Case, Case]] = {
    # 20 % fail; and 20 % are over a limit of their own.
    "PenstockAvailabilityFastBurn": (
        Case(series=_requests("0+80x90", "0+20x90", 'outcome="error",status="503"'), at=85),
        Case(series=_requests("0+80x90", "0+20x90", 'outcome="refused",status="429"'), at=85),
    ),
    # 2 % fail; and many more, of so few requests that the floor is not reached.
    "PenstockAvailabilitySlowBurn": (
        Case(series=_requests("0+9.8x160", "0+0.2x160", 'outcome="truncated",status="200"'), at=150),
        Case(series=_requests("0+0.1x160", "0+0.04x160"), at=150),
    ),
    "PenstockLatencyFastBurn": (
        Case(series=_first_tokens("0+100x90", "0+20x90"), at=85),
        Case(series=_first_tokens("0+100x60 6000+0x40", "0+20x60 1200+0x40"), at=99),  # it is over
    ),
    "PenstockLatencySlowBurn": (
        Case(series=_first_tokens("0+10x160", "0+8x160"), at=150),
        Case(series=_first_tokens("0+10x160", "0+9.7x160"), at=150),
    ),
    "PenstockQueueGrowing": (_one(WAITING, "0+4x40", 15), _one(WAITING, "60+0x40", 30)),
    "PenstockQueueRefusing": (
        _one('penstock_queue_refusals_total{pool="p",reason="full"}', "0+5x30", 20),
        _one('penstock_queue_refusals_total{pool="p",reason="full"}', "0+1x30", 20),
    ),
    "PenstockKvCacheSaturated": (
        _one('vllm:kv_cache_usage_perc{model_name="m",instance="e"}', "0.98+0x30", 20),
        _one('vllm:kv_cache_usage_perc{model_name="m",instance="e"}', "0.98 0.7 0.98 0.6 0.98x30", 5),
    ),
    "PenstockTokenThroughputFell": (
        Case(series={TOKENS: "0+6000x200 1200000+600x60", RUNNING: "2+0x260"}, at=245),
        Case(series={TOKENS: "0+6000x200 1200000+600x60", RUNNING: "2+0x200 0.2+0x60"}, at=245),  # less is asked for
    ),
    "PenstockCostAnomaly": (
        _one(COST, "0+0.01x300 3+0.1x120", 400),
        _one(COST, "0+0.001x300 0.3+0.01x120", 400),  # ten times as much, and still less than a dollar
    ),
    "PenstockSafetySpike": (_one(FOUND, "0+0x60 0+10x20", 75), _one(FOUND, "0+10x120", 110)),
    "PenstockJournalLoss": (
        _one('penstock_journal_lost_records_total{instance="g",worker="w"}', "0x10 3x10", 12),
        _one('penstock_journal_lost_records_total{instance="g",worker="w"}', "3x40", 12),
    ),
    "PenstockJournalFailing": (
        _one('penstock_journal_failures_total{instance="g",worker="w"}', "0x10 1x10", 12),
        _one('penstock_journal_failures_total{instance="g",worker="w"}', "1x40", 12),
    ),
    "PenstockContentLost": (
        _one('penstock_content_lost_total{instance="g",worker="w"}', "0x10 2x10", 12),
        _one('penstock_content_lost_total{instance="g",worker="w"}', "2x40", 12),
    ),
    "PenstockForgettingUnconfirmed": (
        _one('penstock_forgettings_unconfirmed{host="h"}', "0 1x30", 17),
        _one('penstock_forgettings_unconfirmed{host="h"}', "0 1x10 0x20", 17),
    ),
    "PenstockSinkLag": (
        _one('penstock_ship_lag_bytes{instance="s",reader="control"}', "100000000+0x30", 15),
        _one('penstock_ship_lag_bytes{instance="s",reader="control"}', "100000000x8 0x30", 15),
    ),
    "PenstockSinkFailing": (
        Case(series={FAILURES: "0+2x40", SHIPPED: "5+0x40"}, at=25),
        Case(series={FAILURES: "0+2x40", SHIPPED: "5+1x40"}, at=25),
    ),
    "PenstockSinkDeadLetters": (
        _one('penstock_ship_dead_letters_total{instance="s",reader="elastic"}', "0x10 1x10", 12),
        _one('penstock_ship_dead_letters_total{instance="s",reader="elastic"}', "1x40", 12),
    ),
    "PenstockJournalDamaged": (
        _one('penstock_ship_damaged_bytes_total{instance="s",reader="control"}', "0x10 512x10", 12),
        _one('penstock_ship_damaged_bytes_total{instance="s",reader="control"}', "512x40", 12),
    ),
    "PenstockPoolDown": (
        Case(series={UP % ("a", "w"): "1x5 0x9", UP % ("b", "w"): "1x5 0x9"}, at=9),
        Case(series={UP % ("a", "w"): "1x5 0x9", UP % ("b", "w"): "1x20"}, at=9),
    ),
    "PenstockReplicaOut": (
        Case(series={UP % ("a", "v"): "1x5 0x30", UP % ("a", "w"): "1x5 0x30"}, at=25),
        Case(series={UP % ("a", "v"): "1x5 0x30", UP % ("a", "w"): "1x40"}, at=25),
    ),
    "PenstockReplicaFlapping": (
        _one('penstock_replica_ejections_total{pool="p",replica="a",reason="probe",worker="w"}', "0+1x80", 70),
        _one('penstock_replica_ejections_total{pool="p",replica="a",reason="probe",worker="w"}', "0x60 2x80", 70),
    ),
    "PenstockEngineRestarting": (
        _one('penstock_engine_restarts_total{model_name="m",instance="e"}', "0+1x30", 20),
        _one('penstock_engine_restarts_total{model_name="m",instance="e"}', "0x10 1x30", 20),
    ),
    "PenstockProcessRestarting": (
        _one('process_start_time_seconds{job="engine",instance="e"}', "0+60x30", 20),
        _one('process_start_time_seconds{job="engine",instance="e"}', "0x10 60x10 90x10", 20),
    ),
    "PenstockGatewayDown": (
        _one('up{job="gateway",instance="g"}', "1x5 0x9", 9),
        Case(series={'up{job="gateway",instance="g"}': "1x5 0x9", 'up{job="gateway",instance="h"}': "1x20"}, at=9),
    ),
    "PenstockTargetDown": (
        _one('up{job="ship",instance="s"}', "1x5 0x9", 9),
        _one('up{job="ship",instance="s"}', "1x5 0x1 1x9", 9),
    ),
    "PenstockOpenFiles": (
        Case(series={'process_open_fds{job="gateway"}': "900x30", 'process_max_fds{job="gateway"}': "1000x30"}, at=20),
        Case(series={'process_open_fds{job="gateway"}': "700x30", 'process_max_fds{job="gateway"}': "1000x30"}, at=20),
    ),
    "PenstockSnapshotFaults": (
        _one('penstock_snapshot_faults{kind="route",worker="w"}', "0x5 1x20", 15),
        _one('penstock_snapshot_faults{kind="route",worker="w"}', "0x5 1x3 0x20", 15),
    ),
    "PenstockSnapshotLag": (
        Case(
            series={
                'penstock_snapshot_generation{worker="w"}': "7x20",
                "penstock_control_snapshot_generation": "7x5 8x20",
            },
            at=15,
        ),
        Case(
            series={
                'penstock_snapshot_generation{worker="w"}': "7x6 8x20",
                "penstock_control_snapshot_generation": "7x5 8x20",
            },
            at=15,
        ),
    ),
    "PenstockNoGatewayReports": (
        _one("penstock_control_gateways", "0x20", 10),
        _one("penstock_control_gateways", "1x3 0x3 1x20", 10),
    ),
    "PenstockLedgerDown": (
        _one('penstock_ledger_up{instance="g",worker="w"}', "1x5 0x20", 10),
        _one('penstock_ledger_up{instance="g",worker="w"}', "1x8 0x1 1x20", 10),
    ),
    "PenstockCertificateExpiresSoon": (_one(EXPIRES, "864000x90", 70), _one(EXPIRES, "1728000x90", 70)),
    "PenstockCertificateExpires": (_one(EXPIRES, "86400x20", 10), _one(EXPIRES, "864000x20", 10)),
    "PenstockCertificateRenewalFailing": (
        _one('penstock_tls_renewal_failures_total{instance="g",worker="w"}', "0x10 1x10", 12),
        _one('penstock_tls_renewal_failures_total{instance="g",worker="w"}', "1x40", 12),
    ),
    "PenstockWorseThanBefore": (
        _one(DRIFTED % ("success", "before"), "0x5 1x9", 10),
        _one(DRIFTED % ("success", "before"), "0x20", 10),
    ),
    "PenstockOutputDrift": (
        _one(DRIFTED % ("perplexity", "itself"), "0x5 1x9", 10),
        _one(DRIFTED % ("input_topic", "itself"), "0x5 1x9", 10),  # what is asked is another matter
    ),
    "PenstockInputDrift": (
        _one(DRIFTED % ("input_topic", "itself"), "0x5 1x9", 10),
        _one(DRIFTED % ("perplexity", "itself"), "0x5 1x9", 10),
    ),
    "PenstockPopulationShifted": (
        _one('penstock_drift_shifted{model="m",arm="",signal="success"}', "1x20", 10),
        _one('penstock_drift_shifted{model="m",arm="",signal="success"}', "0x20", 10),
    ),
    "PenstockKeyExpires": (_one(ENDS, "500000x90", 70), _one(ENDS, "700000x90", 70)),
    "PenstockEvaluatorBehind": (
        _one('penstock_evaluator_behind_seconds{evaluator="e"}', "0x5 2000x30", 30),
        _one('penstock_evaluator_behind_seconds{evaluator="e"}', "0x5 1700x30", 30),
    ),
    "PenstockEvaluatorFailing": (
        Case(series={FAILED_SCORES: "0+6x60", SCORES: "0+4x60"}, at=50),
        Case(series={FAILED_SCORES: "0+4x60", SCORES: "0+6x60"}, at=50),
    ),
    "PenstockExperimentHarm": (
        _one('penstock_experiments_ended_total{route="r",result="harm"}', "0x20 1x20", 30),
        _one('penstock_experiments_ended_total{route="r",result="worse"}', "0x20 1x20", 30),
    ),
    "PenstockExperimentBlocked": (
        _one('penstock_experiment_blocked{experiment="e",route="r"}', "0x5 1x40", 30),
        _one('penstock_experiment_blocked{experiment="e",route="r"}', "0x20 1x5 0x20", 30),
    ),
    "PenstockCanaryRolledBack": (
        _one('penstock_canaries_ended_total{model="m",result="rolled_back"}', "0x20 1x20", 30),
        _one('penstock_canaries_ended_total{model="m",result="aborted"}', "0x20 1x20", 30),
    ),
    "PenstockCanaryUnwatched": (
        _one('penstock_canary_expires_timestamp_seconds{model="m",version="m:v2"}', "630x30", 20),
        _one('penstock_canary_expires_timestamp_seconds{model="m",version="m:v2"}', "30+60x30", 20),
    ),
    "PenstockExperimentStuck": (
        Case(series={STARTED: "0x500", UNITS: "0+1x60 60+0x400"}, at=450),
        Case(series={STARTED: "0x500", UNITS: "0+1x500"}, at=450),
    ),
}
