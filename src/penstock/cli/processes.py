"""`penstock gateway`, `grpc`, `control`, `engine`, `ship`: one process each, as `up` starts them, or on their own."""

import click

from penstock.cli.flags import PORT, data_flag, tls_certificate_flag, tls_key_flag
from penstock.compose.control import run_control
from penstock.compose.engine import run_engine
from penstock.compose.examiner import run_examiner
from penstock.compose.gateway import run_gateway, run_gateways
from penstock.compose.grpc import run_grpc
from penstock.compose.settings import read_settings
from penstock.compose.ship import run_ship
from penstock.compose.up import run_supervisor


@click.command()
@data_flag
@click.option("--host", help="Address to listen on [default: 127.0.0.1].")
@click.option("--gateway-port", type=PORT, help="Port of the OpenAI API [default: 8080].")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes that share the port [default: 1].")
@click.option("--worker", type=click.IntRange(0, 255), help="Run only the worker of this number, under a supervisor.")
@click.option("--control-url", metavar="URL", help="Where control is; without it the Snapshot on disk is served.")
@tls_certificate_flag
@tls_key_flag
def gateway(
    data: str | None,
    host: str | None,
    gateway_port: int | None,
    workers: int | None,
    worker: int | None,
    control_url: str | None,
    tls_certificate: str | None,
    tls_key: str | None,
) -> None:
    """Run the gateway: the OpenAI API in front of engines.

    It serves from the last Snapshot in the data folder, also while control is away. SIGTERM drains it. With a
    certificate SIGHUP reads that again; so does a change of its file.
    """
    settings = read_settings(
        {
            "data": data,
            "gateway.host": host,
            "gateway.port": gateway_port,
            "gateway.workers": workers,
            "gateway.control_url": control_url,
            "gateway.tls_certificate": tls_certificate,
            "gateway.tls_key": tls_key,
        }
    )
    if worker is None and settings.gateway.workers > 1:
        run_gateways(settings)
    else:
        run_gateway(settings, worker or 0, supervised=worker is not None)


@click.command()
@data_flag
@click.option("--host", help="Address to listen on [default: 127.0.0.1].")
@click.option("--grpc-port", type=PORT, help="Port of the Open Inference Protocol [default: 8082].")
@tls_certificate_flag
@tls_key_flag
def grpc(
    data: str | None, host: str | None, grpc_port: int | None, tls_certificate: str | None, tls_key: str | None
) -> None:
    """Run the gRPC server: the Open Inference Protocol v2 in front of the gateway workers of the data folder.

    Each call is asked of a worker over its Unix socket, and so passes the same steps as over HTTP. SIGTERM drains it.
    """
    run_grpc(
        read_settings(
            {
                "data": data,
                "gateway.host": host,
                "gateway.grpc_port": grpc_port,
                "gateway.tls_certificate": tls_certificate,
                "gateway.tls_key": tls_key,
            }
        )
    )


@click.command()
@data_flag
@click.option("--host", help="Address to listen on [default: 127.0.0.1].")
@click.option("--control-port", type=PORT, help="Port of the console and the control API [default: 8081].")
@click.option("--empty", is_flag=True, default=None, help="Register no starter models at the first start.")
def control(data: str | None, host: str | None, control_port: int | None, empty: bool | None) -> None:
    """Run the control plane: the API, the console and the loops that bring the world to what was asked for."""
    run_control(read_settings({"data": data, "control.host": host, "control.port": control_port, "empty": empty}))


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@data_flag
@click.option("--host", help="Address to listen on [default: 127.0.0.1].")
@click.option("--port", type=PORT, help="Port of the OpenAI API of this engine [default: 8090].")
@click.option("--model", help="Name that requests must ask for [default: any].")
@click.option("--max-running", type=click.IntRange(1), help="Requests that run together [default: 16].")
@click.option("--max-waiting", type=click.IntRange(0), help="Requests that may wait beyond those [default: 128].")
@click.option("--kv-cache-mb", type=click.IntRange(1), help="Memory for keys and values, MiB [default: 256].")
@click.option("--threads", type=click.IntRange(0), help="CPU threads; 0: as many as cores [default: 0].")
@click.option(
    "--prefix-cache/--no-prefix-cache", default=None, help="Remember prompts, for all tenants alike [default: no]."
)
@click.option(
    "--provenance",
    type=click.Path(exists=True, dir_okay=False),
    help="Load only what is signed by this file, which control writes beside a build, or of the digest that is trusted.",
)
@click.option(
    "--trust",
    "trusted",
    multiple=True,
    metavar="KEY|DIGEST",
    help="Public key whose signature counts, or the version's digest; repeatable.",
)
def engine(
    directory: str,
    data: str | None,
    host: str | None,
    port: int | None,
    model: str | None,
    max_running: int | None,
    max_waiting: int | None,
    kv_cache_mb: int | None,
    threads: int | None,
    prefix_cache: bool | None,
    provenance: str | None,
    trusted: tuple[str, ...],
) -> None:
    """Run one embedded engine for the OpenVINO model in DIRECTORY. SIGTERM drains it."""
    run_engine(
        read_settings(
            {
                "data": data,
                "engine.host": host,
                "engine.port": port,
                "engine.max_running": max_running,
                "engine.max_waiting": max_waiting,
                "engine.kv_cache_mb": kv_cache_mb,
                "engine.threads": threads,
                "engine.prefix_cache": prefix_cache,
            }
        ),
        directory,
        model,
        provenance=provenance,
        trusted=trusted,
    )


@click.command()
@data_flag
@click.option("--ship-port", type=PORT, help="Port of its metrics [default: 8083].")
@click.option("--control-url", metavar="URL", help="Where control is.")
def ship(data: str | None, ship_port: int | None, control_url: str | None) -> None:
    """Run the shipper, which carries the journal's records to control and remembers how far it came."""
    run_ship(read_settings({"data": data, "ship.port": ship_port, "ship.control_url": control_url}))


@click.command()
@data_flag
@click.option("--control-url", metavar="URL", help="Where control is.")
def examiner(data: str | None, control_url: str | None) -> None:
    """Run the examiner, which evaluates versions: it has engines of its own, away from users' traffic. SIGTERM ends it.

    Under `up` it is started when something is to be evaluated. What it was at when it was killed is gone on with, item by item.
    """
    run_examiner(read_settings({"data": data, "ship.control_url": control_url}))


@click.command(hidden=True)
@data_flag
def supervise(data: str | None) -> None:
    """Keep the processes of a data folder running, until SIGTERM. `up` starts it."""
    run_supervisor(read_settings({"data": data}))
