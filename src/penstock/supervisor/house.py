"""The processes that one machine runs, and in which order they drain."""

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import msgspec

from penstock.core.settings import Settings
from penstock.runtime.port import ReplicaSpec
from penstock.supervisor.ports import reachable
from penstock.supervisor.values import ProcessSpec

# What stops when: first what takes requests, then what carries their records away, then what answers, then what rules.
DRAIN_ORDER = (("grpc", "gateway"), ("ship", "examiner"), ("engine",), ("control",))
_MARGIN_S = 5.0  # beyond a process's own bound, before it is killed


class House(msgspec.Struct, frozen=True, kw_only=True):
    """How to start each kind of process on this machine.

    Attributes:
        program: the command line of `penstock` itself.
        data: the data folder, absolute.
        environment: fingerprint of the settings.
    """

    program: tuple[str, ...]
    data: Path
    settings: Settings
    environment: str

    def _argv(self, *words: str) -> tuple[str, ...]:
        return (*self.program, *words, "--data", str(self.data))

    def _pulse(self, socket: str) -> str:
        return f"unix://{quote(str(self.data / 'run' / socket))}?/healthz"

    def everything(self) -> tuple[ProcessSpec, ...]:
        """What runs on one machine beside its engines."""
        return (self.control(), *self.gateways(), *self.grpc(), self.ship())

    def control(self) -> ProcessSpec:
        """The control plane."""
        port = self.settings.control.port
        return ProcessSpec(
            name="control",
            kind="control",
            argv=self._argv("control", "--control-port", str(port)),
            port=port,
            url=f"http://{reachable(self.settings.control.host)}:{port}",
            environment=self.environment,
            grace_s=10.0,
        )

    def gateways(self) -> list[ProcessSpec]:
        """The gateway workers; they share one port."""
        gateway = self.settings.gateway
        return [
            ProcessSpec(
                name=f"gateway-{number}",
                kind="gateway",
                argv=self._argv("gateway", "--gateway-port", str(gateway.port), "--worker", str(number)),
                port=gateway.port,
                pulse=self._pulse(f"gateway-{number}.metrics"),
                environment=self.environment,
                grace_s=gateway.drain_s + _MARGIN_S,
            )
            for number in range(gateway.workers)
        ]

    def grpc(self) -> list[ProcessSpec]:
        """What speaks gRPC for the gateway workers; nobody, if it has no port."""
        gateway = self.settings.gateway
        if not gateway.grpc_port:
            return []
        return [
            ProcessSpec(
                name="grpc",
                kind="grpc",
                argv=self._argv("grpc", "--grpc-port", str(gateway.grpc_port)),
                port=gateway.grpc_port,
                pulse=self._pulse("grpc.pulse"),
                environment=self.environment,
                grace_s=gateway.drain_s + _MARGIN_S,
            )
        ]

    def ship(self) -> ProcessSpec:
        """The shipper."""
        port = self.settings.ship.port
        return ProcessSpec(
            name="ship",
            kind="ship",
            argv=self._argv("ship", "--ship-port", str(port)),
            port=port,
            url=f"http://{reachable(self.settings.ship.host)}:{port}",
            environment=self.environment,
            grace_s=10.0 + _MARGIN_S,
        )

    def examiner(self, replica: ReplicaSpec) -> ProcessSpec:
        """What evaluates versions."""
        return ProcessSpec(
            name=f"engine-{replica.id}",
            kind="examiner",
            argv=self._argv("examiner"),
            pulse=self._pulse("examiner.pulse"),
            environment=self.environment,
            grace_s=_MARGIN_S,
            replica=replica,
        )

    def engine(self, replica: ReplicaSpec, port: int) -> ProcessSpec:
        """One engine replica at `port`."""
        return ProcessSpec(
            name=f"engine-{replica.id}",
            kind="engine",
            argv=(
                *self.program,
                "engine",
                replica.directory,
                "--port",
                str(port),
                "--model",
                replica.model,
                *replica.args,
                "--data",
                str(self.data),
            ),
            port=port,
            url=f"http://{reachable(self.settings.engine.host)}:{port}",
            environment=self.environment,
            grace_s=self.settings.engine.drain_s + _MARGIN_S,
            replica=replica,
        )


def first_free_port(start: int, taken: set[int], is_free: Callable[[int], bool]) -> int:
    """The lowest port from `start` on that is neither `taken` nor refused by `is_free`.

    Raises:
        ValueError: if there is none.
    """
    for port in range(start, 65536):
        if port not in taken and is_free(port):
            return port
    raise ValueError(f"no port from {start} on is free")


def settings_environment(settings: Settings) -> dict[str, str]:
    """The `PENSTOCK_*` variables that make another process read the same settings; defaults are left out."""
    found: dict[str, str] = {}
    for field in msgspec.structs.fields(Settings):
        value = getattr(settings, field.name)
        if isinstance(value, msgspec.Struct):
            group = type(value)()
            for inner in msgspec.structs.fields(value):
                text = getattr(value, inner.name)
                if text != getattr(group, inner.name):
                    found[f"PENSTOCK_{field.name}_{inner.name}".upper()] = _text(text)
        elif value != getattr(Settings(), field.name):
            found[f"PENSTOCK_{field.name}".upper()] = _text(value)
    return found


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def child_environment(environ: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """What children are started with: `environ` without its own `PENSTOCK_*`, and the settings as they were resolved."""
    kept = {name: value for name, value in environ.items() if not name.startswith("PENSTOCK_")}
    return {**kept, **settings_environment(settings)}
