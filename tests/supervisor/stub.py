"""Stands for `penstock` in tests of the launcher and the supervisor: `up` and `supervise` are the real ones, and what they
run are small servers that answer 200. A worker that finds `DATA/refuse-<name>` ends with a sentence instead.
"""

import http.server
import signal
import socketserver
import sys
from pathlib import Path
from types import FrameType

from penstock.cli.main import main
from penstock.compose import up


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    allow_reuse_port = True


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _flag(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def _serve(kind: str) -> None:
    signal.signal(signal.SIGTERM, _leave)
    if (Path(_flag("--data")) / f"refuse-{kind}").exists():
        sys.exit(f"Error: {kind} refuses to start.")
    flags = {"control": "--control-port", "gateway": "--gateway-port", "grpc": "--grpc-port", "ship": "--ship-port"}
    port = flags.get(kind, "--port")
    print("serving", flush=True)
    _Server(("127.0.0.1", int(_flag(port))), _Handler).serve_forever()


if __name__ == "__main__":
    up.program = lambda: (sys.executable, __file__)
    if sys.argv[1] in {"up", "supervise"}:
        main()
    _serve(sys.argv[1])
