"""The gRPC server in front of the gateway workers."""

from importlib.util import find_spec

from penstock.compose.process import data_folder, log_to_stdout, run
from penstock.core.errors import Unavailable
from penstock.core.settings import Settings


def has_grpc() -> bool:
    """Whether the extra `grpc` is installed, and the code of its messages was made."""
    return bool(find_spec("grpc") and find_spec("google.protobuf") and find_spec("penstock.gateway.grpc.inference_pb2"))


def run_grpc(settings: Settings) -> None:
    """The gRPC server in front of the gateway workers of one data folder, until SIGTERM.

    Raises:
        Unavailable: if gRPC is not installed, or the address cannot be had.
    """
    log_to_stdout()
    if not has_grpc():
        raise Unavailable(
            "gRPC is not installed.",
            hint="pip install 'penstock[grpc]'; in a source tree, `make install` makes its messages.",
        )
    from penstock.gateway.grpc.serve import serve_grpc

    run(serve_grpc(settings=settings.gateway, data=data_folder(settings)))
