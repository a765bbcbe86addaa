"""The public API as the console reads it, over values that a test sets."""

import math
import random
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from penstock.access.principals import allows
from penstock.core.exchange import Exchange, Finding, Observation, Phases, Usage
from penstock.experiments.design import parse_design
from penstock.experiments.verdict import ArmTraffic, Comparison, Gauge, SampleRatio, Verdict
from tests.console.fake_gateway import HEADERS

ADMIN = "psa-admin-key"
ANALYST = "psa-analyst-key"
DIGESTS = {"v1.0.0": "sha256:" + "3f" * 32, "v1.1.0": "sha256:" + "ab" * 32}
CARD = """---
license: apache-2.0
---
# support-bot v1.1.0

Answers questions of customers of a **fictional shop**. See [the source](https://example.org/x).

| Measure | Value | 95 % interval |
|---|---:|---|
| In-scope answers right | 84.1 % | 79.0 to 88.2 |
| Order numbers right | 98.9 % | 96.0 to 99.9 |

## Known limits

- English alone.
- It invents nothing, but it may misread a typing error.
"""


def refused(status: int, message: str, code: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "x", "param": None, "code": code}}, status_code=status)


class FakeApi:
    """`calls` are the changes that came. `empty` makes it a house in which nothing has happened yet."""

    def __init__(self, now: float, *, empty: bool = False) -> None:
        self.now = now
        self.calls: list[tuple[str, Any]] = []
        self.card = CARD
        self.names = {"model": "support-bot", "user": "admin", "reason": "passed the evaluation"}
        self.exchanges = [] if empty else make_exchanges(now)
        self.empty = empty
        self.experiment_state = "running"
        self.down = False
        rules = {
            "/me": self._me,
            "/overview": self._overview,
            "/deployments": self._deployments,
            "/gateways": self._gateways,
            "/exchanges": self._exchanges,
            "/exchanges/{id}": self._exchange,
            "/models": self._models,
            "/models/{name}": self._model,
            "/models/{name}/versions": self._versions,
            "/models/{name}/versions/{label}": self._version,
            "/models/{name}/history": self._history,
            "/experiments": self._experiments,
            "/experiments/{name}": self._experiment,
            "/experiments/{name}/looks": self._looks,
            "/environments": self._environments,
            "/routes": self._routes,
            "/keys": self._keys,
            "/tenants": self._tenants,
        }
        changes = ("/promote", "/rollback", "/experiments/{name}/{action}", "/keys", "/keys/{id}/revoke")
        self.app = Starlette(
            routes=[
                *(Route(f"/api/v1{path}", self._changed, methods=["POST"]) for path in changes),
                *(Route(f"/api/v1{path}", self._read(handler)) for path, handler in rules.items()),
            ]
        )

    def _roles(self, request: Request) -> tuple[str, ...] | None:
        return {f"Bearer {ADMIN}": ("admin",), f"Bearer {ANALYST}": ("analyst",)}.get(
            request.headers.get("authorization", "")
        )

    def _read(self, handler: Any) -> Any:
        async def endpoint(request: Request) -> Response:
            if self.down:
                return refused(503, "The database failed: disk is full.", "database_unavailable")
            if self._roles(request) is None:
                return refused(401, "This key is not known, or no longer valid.", "invalid_api_key")
            try:
                value = handler(request)
            except KeyError as error:
                return refused(404, f"There is no {error}.", "not_found")
            if isinstance(value, Response):
                return value
            return Response(msgspec.json.encode(value), media_type="application/json")

        return endpoint

    async def _changed(self, request: Request) -> Response:
        roles = self._roles(request) or ()
        path = request.url.path.removeprefix("/api/v1")
        permission = "keys:write" if path.startswith("/keys") else "deployments:write"
        if not allows(roles, permission):  # type: ignore[arg-type]
            return refused(403, "You may not do this.", "permission_denied")
        self.calls.append((path, await request.json()))
        return JSONResponse({"id": "key_new", "key": "psk-new-key-shown-once", "name": "shop-website"}, 201)

    def _me(self, request: Request) -> Any:
        roles = self._roles(request)
        return {"name": self.names["user"] if roles == ("admin",) else "ada", "roles": roles, "tenant": None}

    def _overview(self, request: Request) -> Any:
        window = float(request.query_params["window_s"])
        if self.empty:
            return {"window_s": window}
        draw = random.Random(7)
        bucket = window / 60
        points = []
        for index in range(60):
            requests = int((30 + 12 * math.sin(index / 7) + draw.random() * 8) * bucket / 60)
            wave = 0.18 + 0.05 * math.sin(index / 9) + draw.random() * 0.02
            points.append(
                {
                    "at": self.now - window + index * bucket,
                    "requests": requests,
                    "errors": int(draw.random() < 0.1),
                    "tokens": requests * 61,
                    "cost_usd": requests * 61 * 2e-7,
                    "latency_s": {"p50": wave, "p95": wave * 2.2, "p99": wave * 3.1},
                    "first_token_s": {"p50": wave / 6, "p95": wave / 3, "p99": wave / 2} if index != 20 else {},
                }
            )
        total = sum(point["requests"] for point in points)
        return {
            "window_s": window,
            "bucket_s": bucket,
            "requests": total,
            "errors": sum(point["errors"] for point in points),
            "cost_usd": sum(point["cost_usd"] for point in points),
            "prompt_tokens": total * 34,
            "completion_tokens": total * 27,
            "latency_s": {"p50": 0.183, "p95": 0.412, "p99": 0.618},
            "first_token_s": {"p50": 0.031, "p95": 0.062, "p99": 0.11},
            "points": points,
        }

    def _deployment(self, environment: str, label: str, age: float) -> dict:
        return {
            "environment": environment,
            "model": self.names["model"],
            "label": label,
            "digest": DIGESTS[label],
            "state": "live",
            "number": 3,
            "principal": self.names["user"],
            "created_at": self.now - age,
            "live_at": self.now - age + 4,
        }

    def _deployments(self, _request: Request) -> Any:
        if self.empty:
            return []
        return [self._deployment("production", "v1.1.0", 86_400), self._deployment("staging", "v1.0.0", 9 * 86_400)]

    def _gateways(self, _request: Request) -> Any:
        if self.empty:
            return {"generation": 0, "gateways": []}
        return {
            "generation": 42,
            "gateways": [
                {"worker": "gateway-0", "pid": 11, "generation": 42, "at": self.now - 1},
                {"worker": "gateway-1", "pid": 12, "generation": 41, "at": self.now - 2},
            ],
        }

    def _exchanges(self, request: Request) -> Any:
        query = request.query_params
        found = [
            one
            for one in self.exchanges
            if all(
                str(getattr(one, name)) == query[name]
                for name in ("route", "arm", "outcome", "status")
                if name in query
            )
        ]
        limit = int(query.get("limit", "50"))
        if "before" in query:
            found = [one for one in found if one.id < query["before"]]
        return {"exchanges": found[:limit], "next": found[limit - 1].id if len(found) > limit else None}

    def _exchange(self, request: Request) -> Any:
        found = {one.id: one for one in self.exchanges}[request.path_params["id"]]
        told = Observation(
            id="f1",
            at=self.now,
            received=self.now,
            kind="feedback",
            tenant="demo",
            request=found.id,
            success=True,
            rating=1,
            text="just what I asked",
        )
        return {"exchange": found, "observations": [told]}

    def _models(self, _request: Request) -> Any:
        return [] if self.empty else [self._about()]

    def _about(self) -> dict:
        return {
            "name": self.names["model"],
            "description": "Customer service of a fictional shop",
            "created_at": self.now - 1e6,
            "created_by": self.names["user"],
            "versions": 2,
            "latest": "v1.1.0",
        }

    def _model(self, request: Request) -> Any:
        return {self.names["model"]: self._about()}[request.path_params["name"]]

    def _one(self, label: str) -> dict:
        return {
            "model": self.names["model"],
            "label": label,
            "digest": DIGESTS[label],
            "state": "committed",
            "scheme": "semantic",
            "number": 1 + list(DIGESTS).index(label),
            "size": 18_400_000,
            "created_at": self.now - 9e5,
            "created_by": self.names["user"],
            "card": self.card,
            "metadata": {"training": {"steps": 12_000, "seed": 7}, "license": "apache-2.0"},
            "builds": [{"precision": "int8", "engine": "openvino", "digest": DIGESTS[label], "size": 9_400_000}],
            "files": [{"path": "model.safetensors", "digest": DIGESTS[label], "size": 18_000_000}],
        }

    def _versions(self, _request: Request) -> Any:
        return [self._one(label) for label in DIGESTS]

    def _version(self, request: Request) -> Any:
        return {label: self._one(label) for label in DIGESTS}[request.path_params["label"]]

    def _history(self, _request: Request) -> Any:
        return [
            {
                "id": f"rev_{number}",
                "environment": "production",
                "number": number,
                "action": action,
                "label": label,
                "digest": DIGESTS[label],
                "state": state,
                "reason": self.names["reason"],
                "principal": self.names["user"],
                "created_at": self.now - (4 - number) * 86_400,
                "live_at": self.now - (4 - number) * 86_400,
            }
            for number, action, label, state in (
                (3, "promote", "v1.1.0", "live"),
                (2, "rollback", "v1.0.0", "superseded"),
                (1, "promote", "v1.0.0", "superseded"),
            )
        ]

    def _summary(self) -> dict:
        return {
            "name": "support-bot-1-1",
            "state": self.experiment_state,
            "spec": make_design(),
            "verdict": make_verdict(self.now) if self.experiment_state != "draft" else None,
            "created_at": self.now - 9000,
            "created_by": self.names["user"],
            "started_at": self.now - 7200,
        }

    def _experiments(self, _request: Request) -> Any:
        return [] if self.empty else [self._summary()]

    def _experiment(self, request: Request) -> Any:
        return {"support-bot-1-1": self._summary()}[request.path_params["name"]]

    def _looks(self, _request: Request) -> Any:
        if self.experiment_state == "draft":
            return []
        draw = random.Random(3)
        looks = []
        for index in range(80):
            n = 20 + index * 9
            reach = 1.9 / math.sqrt(n)
            middle = 0.2 + 0.25 * (draw.random() - 0.5) / math.sqrt(1 + index / 3)
            looks.append(
                {
                    "at": self.now - 7200 + index * 90,
                    "metric": "success",
                    "arm": "treatment",
                    "n": n,
                    "control_n": n - 3,
                    "estimate": middle,
                    "lower": middle - reach,
                    "upper": middle + reach,
                }
            )
        return looks

    def _environments(self, _request: Request) -> Any:
        return [{"name": name, "spec": {}} for name in ("dev", "staging", "production")]

    def _routes(self, _request: Request) -> Any:
        return [] if self.empty else [{"name": self.names["model"], "spec": {}}]

    def _keys(self, request: Request) -> Any:
        if self._roles(request) != ("admin",):
            return refused(403, "You may not see keys.", "permission_denied")
        return [
            {"id": "key_01hv1", "name": "admin", "roles": ["admin"], "created_at": self.now - 1e6},
            {
                "id": "key_01hv2",
                "name": "demo",
                "tenant": "demo",
                "limits": {"requests_per_minute": 600, "tokens_per_minute": None},
                "created_at": self.now - 1e6,
            },
            {
                "id": "key_01hv3",
                "name": "old-website",
                "tenant": "demo",
                "models": ["support-bot"],
                "created_at": self.now - 2e6,
                "revoked_at": self.now - 1e5,
            },
        ]

    def _tenants(self, _request: Request) -> Any:
        return [{"name": "demo", "spec": {"priority": "standard", "limits": {"requests_per_minute": 6000}}}]


def make_exchanges(now: float) -> list[Exchange]:
    """A hundred and twenty of them, newest first, of every outcome."""
    draw = random.Random(11)
    found = []
    for index in range(120):
        label = "v1.1.0" if draw.random() < 0.5 else "v1.0.0"
        outcome = "ok" if index % 9 else ("refused", "error", "cancelled", "crashed")[index // 9 % 4]
        first = int((0.02 + draw.random() * 0.03) * 1e9)
        last = first + int(draw.random() * 0.3e9)
        found.append(
            Exchange(
                id=f"req_01hv{999 - index:022d}",
                at=now - index * 7,
                worker="gateway-0",
                tenant="demo",
                key="key_01hv2",
                user="9f2c41d07a",
                model="support-bot",
                route="support-bot",
                experiment="support-bot-1-1",
                arm="treatment" if label == "v1.1.0" else "control",
                propensity=0.5,
                pool=f"support-bot-{label}-int8",
                replica="r1",
                version=f"support-bot:{label}",
                digest=DIGESTS[label],
                stream=index % 2 == 0,
                status={"refused": 429, "error": 502}.get(outcome, 200),
                outcome=outcome,  # type: ignore[arg-type]
                error={"refused": "rate_limit_exceeded", "error": "upstream_failed"}.get(outcome, ""),
                finish="stop" if outcome == "ok" else "",
                phases=Phases(
                    decoded=61_000,
                    admitted=402_000,
                    dispatched=510_000,
                    first_token=first,
                    last_token=last,
                    done=last + 90_000,
                ),
                usage=Usage(prompt=34, completion=27, cached=8),
                chunks=27,
                cost_nanousd=12_200,
                cache="hit" if index % 13 == 5 else "miss",
                findings=(Finding(rule="cards", action="mask", where="input", count=2),),
                trace="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                generation=42,
            )
        )
    played = msgspec.structs.replace(found[0], id=HEADERS["x-penstock-request-id"], at=now - 9000)
    return [*found, played]


def make_design() -> Any:
    return parse_design(
        {
            "strategy": "ab",
            "route": "support-bot",
            "hypothesis": "v1.1.0 answers more customers' questions right than v1.0.0",
            "arms": [
                {"name": "control", "build": "support-bot:v1.0.0", "weight": 0.5},
                {"name": "treatment", "build": "support-bot:v1.1.0", "weight": 0.5, "params": {"temperature": 0.2}},
            ],
            "primary": {"metric": "success", "minimum_effect": 0.05},
            "guardrails": [{"metric": "error_rate"}, {"metric": "latency"}],
        }
    )


def make_verdict(now: float) -> Verdict:
    def compared(
        metric: str, unit: str, values: tuple[float, float], interval: Any, state: Any, direction: str
    ) -> Comparison:
        return Comparison(
            metric=metric,
            title=metric.replace("_", " "),
            type="mean",
            unit=unit,
            direction=direction,
            primary=metric == "success",
            arm="treatment",
            control="control",
            n=731,
            control_n=728,
            value=values[0],
            control_value=values[1],
            estimate=interval[0],
            lower=interval[1],
            upper=interval[2],
            state=state,
        )

    return Verdict(
        state="better",
        at=now,
        arm="treatment",
        reasons=(
            "Success is 84.0 % with treatment (731 units) and 62.9 % with control (728 units): +21.1 points; treatment is better.",
        ),
        arms=(
            ArmTraffic(arm="control", share=0.5, units=728, requests=2210),
            ArmTraffic(arm="treatment", share=0.5, units=731, requests=2198),
        ),
        comparisons=(
            compared("success", "share", (0.84, 0.629), (0.211, 0.14, 0.282), "better", "up"),
            compared("latency", "s", (0.183, 0.171), (0.012, -0.004, 0.028), "open", "down"),
            compared("time_to_first_token", "s", (0.031, 0.026), (0.005, 0.001, 0.009), "worse", "down"),
            compared("cost", "USD", (1.2e-5, 1.1e-5), (1e-6, -1e-6, 3e-6), "open", "down"),
        ),
        guardrails=(
            Gauge(
                metric="error_rate",
                arm="treatment",
                evidence=0.4,
                limit=4.6,
                gauge=0.09,
                threshold_s=None,
                tripped=False,
            ),
            Gauge(
                metric="latency", arm="treatment", evidence=1.2, limit=4.6, gauge=0.26, threshold_s=0.41, tripped=False
            ),
        ),
        mismatch=SampleRatio(epoch=1, log_e=-1.0, limit=6.9, p_value=0.94, found=False),
    )
