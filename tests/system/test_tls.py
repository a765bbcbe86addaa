"""`penstock up` with a certificate: the gateway's workers speak TLS, and show a renewed certificate without a restart."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import httpx
from cryptography import x509

from tests.net.certificates import make_certificate, trusting
from tests.system.program import found_healthy
from tests.system.starter import command, running
from tests.system.waiting import until


def _serial(port: int) -> int:
    shown = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
    return x509.load_pem_x509_certificate(shown.encode()).serial_number


def test_up_with_a_certificate(tmp_path: Path) -> None:
    certificate, _ = make_certificate(tmp_path)
    flags = ("--empty", "--workers", "2", "--tls-certificate", "cert.pem", "--tls-key", "key.pem")
    with running(tmp_path / "data", *flags) as up:
        assert up.gateway.startswith("https://127.0.0.1:")
        told = httpx.get(f"{up.gateway}/healthz", verify=trusting(certificate))
        assert told.json() == {"status": "ok"}
        metrics = httpx.get(f"{up.gateway}/metrics", verify=trusting(certificate)).text
        assert metrics.count("penstock_tls_certificate_expires_timestamp_seconds{") == 2
        found = found_healthy(up)
        assert [one["name"] for one in found["causes"]] == ["certificate_ending"], "it ends in two days"
        page = httpx.get(f"{up.control}/readyz")
        assert page.status_code == 200
        port = int(up.gateway.rpartition(":")[2])
        assert _serial(port) == 1
        make_certificate(tmp_path, serial=2)

        def renewed() -> bool | None:
            return {_serial(port) for _ in range(8)} == {2} or None

        until(renewed, 30.0)


def test_a_certificate_that_is_none_is_said_so_at_once(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    (tmp_path / "key.pem").write_text("nothing")
    for flags, words in (
        (("--tls-certificate", "nowhere.pem", "--tls-key", "key.pem"), "nowhere.pem cannot be read"),
        (("--tls-certificate", "cert.pem", "--tls-key", "key.pem"), "no certificate and its key"),
    ):
        argv = command(tmp_path / "data", "--empty", *flags)
        assert argv[0] == sys.executable
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
        assert done.returncode
        assert words in done.stderr + done.stdout
