"""A client made from the published proto, as anybody makes one, and a `penstock grpc` process in front of a house's workers."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import grpc.aio
from grpc_tools import protoc

from tests.gateway.house import KEY
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
PROTO = "penstock/gateway/grpc/inference.proto"


@cache
def generated() -> tuple[ModuleType, ModuleType]:
    """Messages and stubs."""
    with tempfile.TemporaryDirectory() as folder:
        source = str(ROOT / "src")
        assert (
            protoc.main(["protoc", f"-I{source}", f"--python_out={folder}", f"--grpc_python_out={folder}", PROTO]) == 0
        )
        made = []
        for name in ("inference_pb2", "inference_pb2_grpc"):
            full = f"penstock.gateway.grpc.{name}"
            if full not in sys.modules:
                spec = importlib.util.spec_from_file_location(
                    full, Path(folder) / PROTO.replace("inference.proto", f"{name}.py")
                )
                assert spec is not None
                assert spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                sys.modules[full] = module
                spec.loader.exec_module(module)
            made.append(sys.modules[full])
    return made[0], made[1]


def parameters(fields: dict[str, Any]) -> dict[str, Any]:
    pb, _ = generated()
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    return {name: pb.InferParameter(**{kinds[type(value)]: value}) for name, value in fields.items()}


def question(text: str, *, model: str = "mock", name: str = "", outputs: tuple[str, ...] = (), **fields: Any) -> Any:
    """A chat of one message."""
    pb, _ = generated()
    message = json.dumps([{"role": "user", "content": text}]).encode()
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="messages", datatype="BYTES", shape=[1], contents=pb.InferTensorContents(bytes_contents=[message])
    )
    wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs]
    return pb.ModelInferRequest(
        model_name=model, id=name, inputs=[tensor], outputs=wanted, parameters=parameters(fields)
    )


def texts(response: Any, name: str = "text_output") -> list[str]:
    """One output of a response, whichever way it was sent."""
    for index, output in enumerate(response.outputs):
        if output.name == name:
            if not response.raw_output_contents:
                return [one.decode() for one in output.contents.bytes_contents]
            raw, found = response.raw_output_contents[index], []
            while raw:
                size = int.from_bytes(raw[:4], "little")
                found.append(raw[4 : 4 + size].decode())
                raw = raw[4 + size :]
            return found
    raise AssertionError(f"no output {name}")


def credentials(key: str = KEY, **more: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"), *more.items())


def trailing(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    return dict(error.trailing_metadata() or ())


def channel_to(port: int, root: Path | None) -> grpc.aio.Channel:
    if root is None:
        return grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    return grpc.aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(root.read_bytes()))


@contextmanager
def process(data: Path, *, tls: tuple[Path, Path] | None = None) -> Iterator[int]:
    """The port of a `penstock grpc` over the workers of `data`; with `tls` it shows that certificate."""
    port = free_port()
    started = subprocess.Popen(
        [
            sys.executable, "-P", "-m", "penstock.cli", "grpc", "--data", str(data), "--grpc-port", str(port),
            *(("--tls-certificate", str(tls[0]), "--tls-key", str(tls[1])) if tls else ()),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PENSTOCK_GATEWAY_DRAIN_S": "1"}, cwd=data, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield port
    finally:
        started.terminate()
        started.wait(30)


@asynccontextmanager
async def connected(port: int, *, root: Path | None = None) -> AsyncIterator[Any]:
    """A stub to the server at `port`, which trusts the certificate `root`."""
    async with channel_to(port, root) as channel:
        async with asyncio.timeout(60):
            await channel.channel_ready()
        yield generated()[1].GRPCInferenceServiceStub(channel)


@asynccontextmanager
async def serving(data: Path, *, tls: tuple[Path, Path] | None = None) -> AsyncIterator[Any]:
    """A stub to a process of its own."""
    with process(data, tls=tls) as port:
        async with connected(port, root=tls[0] if tls else None) as stub:
            yield stub
