#!/usr/bin/env python3
"""Compiles the modules that every request goes through, in place, with mypyc: the same source, typed as it is, for about three quarters of its CPU.

    scripts/compile_hot.py [FOLDER]     FOLDER holds the package `penstock`; by default `src`
    scripts/compile_hot.py --remove     back to the interpreted modules

Without a C compiler or Python's headers nothing is compiled, and everything runs interpreted. docs/decisions/0022-fibers-and-compiled-modules.md
says what was weighed.
"""

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from shutil import copy2, which

HOT = (
    "core/ids",
    "gateway/amend",
    "gateway/app",
    "gateway/authenticate",
    "gateway/cache",
    "gateway/call",
    "gateway/capture",
    "gateway/decode",
    "gateway/dispatch",
    "gateway/gateway",
    "gateway/identity",
    "gateway/guarded",
    "gateway/index",
    "gateway/metrics",
    "gateway/pools",
    "gateway/ratelimit",
    "gateway/recall",
    "gateway/record",
    "gateway/recorder",
    "gateway/relay",
    "gateway/resolve",
    "gateway/settle",
    "gateway/stream",
    "gateway/trace",
    "gateway/trail",
    "gateway/trail_text",
    "gateway/walk",
    "guard/masking",
    "guard/rules",
    "guard/stream",
    "journal/sealing",
    "journal/vault",
    "net/client",
    "net/connection",
    "net/fiber",
    "net/plain",
    "net/reply",
    "net/request",
    "net/response",
    "net/server",
    "routing/affinity",
    "routing/balancer",
    "routing/fair",
    "routing/member",
    "routing/prices",
    "store/limiter",
    "wire/decoding",
    "wire/delta",
    "wire/edit",
    "wire/ending",
    "wire/members",
    "wire/sse",
)
_SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")


def remove(folder: Path) -> None:
    """Takes away what was compiled."""
    for file in (*folder.glob("penstock__mypyc*.so"), *(folder / "penstock").rglob(f"*{_SUFFIX}")):
        file.unlink()


def main() -> int:
    """Compiles, or says why not."""
    arguments = sys.argv[1:]
    if arguments == ["--list"]:
        print("\n".join(f"src/penstock/{name}.py" for name in HOT))
        return 0
    folder = Path(next((a for a in arguments if not a.startswith("-")), "src")).resolve()
    remove(folder)
    if "--remove" in arguments:
        return 0
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if which("gcc") is None and which("cc") is None:
        print(
            "No C compiler is here: the gateway runs interpreted, at about 1.3 times the CPU a request.",
            file=sys.stderr,
        )
        return 0
    if not headers.exists():
        print(
            f"{headers} is not here: the gateway runs interpreted, at about 1.3 times the CPU a request.",
            file=sys.stderr,
        )
        return 0
    with tempfile.TemporaryDirectory() as built:
        setup = Path(built) / "setup.py"
        alone = Path(built) / "source"  # beside other packages, these would be taken for ours
        alone.mkdir()
        (alone / "penstock").symlink_to(folder / "penstock")
        files = [str(Path("penstock") / f"{name}.py") for name in HOT]
        options = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent", "--no-error-summary"]
        setup.write_text(
            "from setuptools import setup\nfrom mypyc.build import mypycify\n"
            f"setup(name='penstock-hot', packages=[], ext_modules=mypycify({options + files!r}, group_name='penstock', target_dir={built + '/c'!r}))\n"
        )
        done = subprocess.run(
            [sys.executable, setup, "-q", "build_ext", "--build-lib", Path(built, "lib"), "--build-temp", Path(built, "objects")],
            cwd=alone, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            print(done.stdout[-4000:], done.stderr[-4000:], file=sys.stderr)
            print("The modules could not be compiled: the gateway runs interpreted.", file=sys.stderr)
            return 0
        for file in Path(built, "lib").rglob("*.so"):
            copy2(file, folder / file.relative_to(Path(built, "lib")))
    print(f"{len(HOT)} modules are compiled.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
