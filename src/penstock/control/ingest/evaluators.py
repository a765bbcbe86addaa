"""What evaluators' calls came to, since ever: folded over a batch, then added to the rows in one go."""

from collections import Counter

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.evaluators.entry import evaluator_of
from penstock.core.exchange import Exchange
from penstock.experiments.metrics import FAILURES
from penstock.store.schema_evaluators import evaluator_usage

USED = ("calls", "errors", "refused", "prompt_tokens", "completion_tokens", "cost_nanousd")


class EvaluatorUsage:
    """Calls of one batch of records, by evaluator."""

    def __init__(self) -> None:
        self._used: dict[str, Counter[str]] = {}

    def add(self, exchange: Exchange) -> None:
        """Count an exchange of the tenant of evaluators."""
        one = self._used.setdefault(evaluator_of(exchange.route), Counter())
        one["calls"] += 1
        one["errors"] += exchange.outcome in FAILURES
        one["refused"] += exchange.outcome == "refused"
        one["prompt_tokens"] += max(0, exchange.usage.prompt)
        one["completion_tokens"] += max(0, exchange.usage.completion)
        one["cost_nanousd"] += max(0, exchange.cost_nanousd)

    async def save(self, connection: AsyncConnection) -> None:
        """Add the batch to the table."""
        table = evaluator_usage
        for name, used in sorted(self._used.items()):
            mine = select(table.c.evaluator).where(table.c.evaluator == name)
            if (await connection.execute(mine)).first() is None:
                await connection.execute(insert(table).values(evaluator=name, **{field: used[field] for field in USED}))
            else:
                more = {field: table.c[field] + used[field] for field in USED if used[field]}
                await connection.execute(update(table).where(table.c.evaluator == name).values(more))
