"""What is measured: our gateway, and its peers as their own documentation recommends running them."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import msgspec

from bench.load import OUT, TARGET_CORE, free_port, pinned, wait_for_port
from penstock.core.digests import hash_secret
from penstock.core.snapshot import (
    CachePolicy,
    KeyEntry,
    Limits,
    Policy,
    Pool,
    Replica,
    Route,
    Rule,
    Snapshot,
    Target,
    TenantEntry,
)


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A target that takes requests."""

    port: int
    pid: int
    headers: tuple[str, ...] = ()


Start = Callable[[int], AbstractContextManager[Running]]


RULES = (
    Rule(name="cards", detect="payment_card", do="mask"),
    Rule(name="mail", detect="email", do="mask"),
    Rule(name="words", words=("swordfish",), do="block"),
)


def bench_snapshot(upstream_port: int, secret: str, *, cache: str = "off", rules: tuple[Rule, ...] = ()) -> Snapshot:
    """One tenant with limits too high to be reached, one route, two replicas to choose from by prefix, `rules` on what goes in and what comes out.

    Cached answers expire at once: each request pays for the look-up, the key and the keeping, and none is answered from the cache.
    """
    limits = Limits(requests_per_minute=1_000_000_000, tokens_per_minute=1_000_000_000_000, concurrency=100_000)
    return Snapshot(
        generation=1,
        policies=(Policy(name="default", rules=rules),) if rules else (),
        keys=(KeyEntry(id="key_bench", hash=hash_secret(secret), tenant="bench", limits=limits),),
        tenants=(TenantEntry(name="bench", limits=limits),),
        routes=(Route(name="mock", to=(Target(pool="mock"),), cache=CachePolicy(mode=cache, sampled=True, ttl_s=0.0)),),  # type: ignore[arg-type]
        pools=(
            Pool(
                name="mock",
                max_in_flight=4096,
                replicas=tuple(Replica(id=f"mock-{n}", url=f"http://127.0.0.1:{upstream_port}") for n in range(2)),
            ),
        ),
    )


@contextmanager
def penstock(upstream_port: int, *more: str, workers: int = 1, rules: tuple[Rule, ...] = ()) -> Iterator[Running]:
    """Our gateway: workers with keys, limits, cache look-up, journal and metrics on; `more` are further flags."""
    data = OUT / f"penstock-{time.time_ns()}"
    (data / "gateway").mkdir(parents=True)
    secret = "pk-" + secrets.token_urlsafe(32)
    (data / "gateway" / "snapshot.json").write_bytes(
        msgspec.json.encode(bench_snapshot(upstream_port, secret, cache="exact", rules=rules))
    )
    port = free_port()
    command: list[str | Path] = [
        Path(".venv/bin/penstock"),
        "gateway",
        "--data",
        data,
        "--gateway-port",
        str(port),
        "--workers",
        str(workers),
        *more,
    ]
    with pinned(command, TARGET_CORE, log=OUT / "penstock.log") as process:
        wait_for_port(port, process)
        yield Running(port=port, pid=process.pid, headers=(f"Authorization: Bearer {secret}",))


@contextmanager
def nginx(upstream_port: int) -> Iterator[Running]:
    """nginx as a plain reverse proxy with keep-alive to its upstream: the floor for any proxy."""
    home = OUT / "nginx"
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (home / "nginx.conf").write_text(
        f"""worker_processes 1; daemon off; master_process off; error_log {home.resolve()}/error.log; pid {home.resolve()}/pid;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {home.resolve()}/body; proxy_temp_path {home.resolve()}/proxy;
  fastcgi_temp_path {home.resolve()}/f; uwsgi_temp_path {home.resolve()}/u; scgi_temp_path {home.resolve()}/s;
  upstream mock {{ server 127.0.0.1:{upstream_port}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""
    )
    with pinned(
        ["nginx", "-p", home.resolve(), "-c", (home / "nginx.conf").resolve()], TARGET_CORE, log=OUT / "nginx.log"
    ) as process:
        wait_for_port(port, process)
        yield Running(port=port, pid=process.pid)


@contextmanager
def vllm_router(upstream_port: int) -> Iterator[Running]:
    """vllm-router (Rust): no keys, no limits, no record."""
    port, metrics = free_port(), free_port()
    url = f"http://127.0.0.1:{upstream_port}"
    command: list[str | Path] = [
        OUT / "peers/vllm-router/bin/vllm-router", "--host", "127.0.0.1", "--port", str(port), "--worker-urls", url, url,
        "--policy", "power_of_two", "--log-level", "error", "--prometheus-port", str(metrics),
    ]  # fmt: skip
    with pinned(command, TARGET_CORE, log=OUT / "vllm-router.log") as process:
        wait_for_port(port, process)
        yield Running(port=port, pid=process.pid)


@contextmanager
def litellm(upstream_port: int) -> Iterator[Running]:
    """LiteLLM's proxy, one worker, with the settings that its documentation gives for production."""
    home = OUT / "litellm"
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (home / "config.yaml").write_text(
        f"""model_list:
  - model_name: mock
    litellm_params: {{model: openai/mock, api_base: "http://127.0.0.1:{upstream_port}/v1", api_key: none}}
general_settings: {{master_key: sk-bench}}
litellm_settings: {{request_timeout: 600, set_verbose: false}}
"""
    )
    command: list[str | Path] = [
        OUT / "peers/litellm/bin/litellm", "--config", home / "config.yaml", "--host", "127.0.0.1", "--port", str(port),
        "--num_workers", "1",
    ]  # fmt: skip
    env = {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with pinned(command, TARGET_CORE, log=OUT / "litellm.log", env=env) as process:
        wait_for_port(port, process)
        yield Running(port=port, pid=process.pid, headers=("Authorization: Bearer sk-bench",))


def targets() -> dict[str, Start]:
    """The targets that are installed here, ours first."""
    found: dict[str, Start] = {
        "penstock": penstock,
        "penstock, rules": partial(penstock, rules=RULES),
        "penstock, two workers": partial(penstock, workers=2),
        "nginx": nginx,
    }
    if (OUT / "peers/vllm-router/bin/vllm-router").exists():
        found["vllm-router"] = vllm_router
    if (OUT / "peers/litellm/bin/litellm").exists():
        found["litellm"] = litellm
    return found
