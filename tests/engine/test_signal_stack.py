"""A process that has used OpenVINO still takes signals, whichever thread let its models go."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

STARTER = Path(__file__).parents[2] / "examples/support_bot/models/support-bot-v1.0.0/openvino-int8"

PROGRAM = """
import gc, os, resource, signal, sys, threading
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

def load(folder):
    {load}

kept = [load(sys.argv[1])]
def drop():
    kept.clear()
    gc.collect()
dropping = threading.Thread(target=drop)
dropping.start()
dropping.join()
signal.signal(signal.SIGTERM, lambda *_: print("handled", flush=True))
os.kill(os.getpid(), signal.SIGTERM)
"""

BARE = "import openvino; return openvino.Core().compile_model(folder + '/openvino_model.xml', 'CPU')"
OURS = {
    "graph": "from pathlib import Path; from penstock.examiner.graph import BuildGraph; return BuildGraph(Path(folder), 1)",
    "tokenizer": "from pathlib import Path; from penstock.engine.text import Tokenizer; return Tokenizer(Path(folder))",
    "pipeline": (
        "from penstock.engine.worker import load; from penstock.engine.messages import Start; return load(Start("
        "directory=folder, max_running=2, kv_blocks=64, threads=1, prefix_cache=False, stop_ids=(2,), interval_s=0.0))"
    ),
}


def run(load: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(load=load), str(STARTER)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.engine
@pytest.mark.parametrize("part", OURS)
def test_a_signal_is_handled_after_another_thread_let_the_model_go(part: str) -> None:
    done = run(OURS[part])
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.engine
def test_without_it_the_process_would_end() -> None:
    """Once this fails, OpenVINO leaves threads' signal stacks alone, and `own_signal_stack` can go."""
    assert run(BARE).returncode == -signal.SIGSEGV
