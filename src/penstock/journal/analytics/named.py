"""Queries that have names: `penstock query @NAME`. A test runs each."""

import msgspec

from penstock.core.errors import NotFound


class Named(msgspec.Struct, frozen=True):
    """One of them."""

    help: str
    sql: str


_LAST = "started >= now()::TIMESTAMP - INTERVAL 7 DAY AND day >= current_date - 8"
NAMED: dict[str, Named] = {
    "cost": Named(
        "What each tenant spent on each model in the last seven days, most first.",
        "SELECT tenant, model, count(*) AS requests, sum(prompt_tokens) AS prompt_tokens, "
        "sum(completion_tokens) AS completion_tokens, round(sum(cost_usd), 9) AS usd "
        f"FROM exchanges WHERE {_LAST} GROUP BY ALL ORDER BY usd DESC, requests DESC",
    ),
    "latency": Named(
        "How long answered requests took by version in the last seven days: medians and the slowest hundredth.",
        "SELECT version, count(*) AS requests, round(quantile_cont(latency_ms, 0.5), 1) AS p50_ms, "
        "round(quantile_cont(latency_ms, 0.99), 1) AS p99_ms, round(quantile_cont(first_token_ms, 0.5), 1) "
        "AS first_token_p50_ms, round(quantile_cont(first_token_ms, 0.99), 1) AS first_token_p99_ms "
        f"FROM exchanges WHERE {_LAST} AND outcome = 'ok' AND cache NOT IN ('hit', 'semantic') "
        "GROUP BY ALL ORDER BY requests DESC",
    ),
    "errors": Named(
        "Error codes of the last seven days, by model, with the newest request of each.",
        "SELECT error, outcome, model, count(*) AS requests, max(started) AS last, arg_max(id, started) AS request "
        f"FROM exchanges WHERE {_LAST} AND error != '' GROUP BY ALL ORDER BY requests DESC",
    ),
    "feedback": Named(
        "What was said of each version's answers of the last seven days.",
        "SELECT x.version, x.arm, count(*) AS told, round(avg(o.success::INTEGER), 4) AS success, "
        "round(avg(o.rating), 4) AS rating FROM observations o JOIN exchanges x ON o.request = x.id "
        f"AND o.tenant = x.tenant WHERE o.kind = 'feedback' AND x.{_LAST.replace('day', 'x.day')} "
        "GROUP BY ALL ORDER BY told DESC",
    ),
    "days": Named(
        "Requests, failures, tokens and cost by day.",
        "SELECT day, count(*) AS requests, count(*) FILTER (outcome IN ('error', 'truncated', 'crashed')) AS failed, "
        "sum(prompt_tokens + completion_tokens) AS tokens, round(sum(cost_usd), 9) AS usd "
        "FROM exchanges GROUP BY ALL ORDER BY day DESC",
    ),
}


def sql_of(text: str) -> str:
    """The statement that `text` is, or names with @.

    Raises:
        NotFound: if there is no query of that name.
    """
    if not text.startswith("@"):
        return text
    found = NAMED.get(text[1:].strip())
    if found is None:
        raise NotFound(
            f"There is no query {text!r}; there are: {', '.join(f'@{name}' for name in NAMED)}.", param="sql"
        )
    return found.sql
