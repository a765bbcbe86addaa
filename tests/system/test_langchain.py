"""LangChain's standard integration tests of chat models, with its OpenAI client, over the gateway and the real model.

They run in an environment of their own (`make test` makes it): they bring plugins of pytest that would change how all other tests run.
"""

import os
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.system.starter import ROOT, Up

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(300)]

PYTHON = ROOT / ".venv" / "langchain" / "bin" / "python"
SUITE = ROOT / "tests" / "langchain"
# Why a test may be left out: what the starter model or the embedded engine lacks, and what does not concern us.
LACKS = (
    "Test requires tool c",  # calling, choice: the model was not trained to
    "Test requires structured output",  # the engine forces no grammar
    "Test requires json mode support",
    "Model does not support",  # images, PDF and audio
    "Model does not explicitly support Anthropic inputs",
    "model_override_value not specified",  # there is one model
    "VCR not set up",  # compares with recordings of the author's own service
)


def test_the_standard_suite_passes(up: Up, tmp_path: Path) -> None:
    assert PYTHON.exists(), "the environment is not there: make .venv/langchain/.installed"
    report = tmp_path / "report.xml"
    environment = {
        **os.environ,
        "PENSTOCK_TEST_URL": up.gateway,
        "PENSTOCK_TEST_KEY": up.secret("demo.key"),
        "LANGSMITH_TRACING": "false",
    }
    done = subprocess.run(
        [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "pytest.ini", f"--junitxml={report}", "suite.py"],
        cwd=SUITE, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    cases = list(ET.parse(report).iter("testcase"))
    skips = [(case.get("name"), skipped.get("message") or "") for case in cases for skipped in case.iter("skipped")]
    assert not [(name, why) for name, why in skips if not why.startswith(LACKS)]
    assert len(cases) - len(skips) >= 34  # half of them by the Responses API
