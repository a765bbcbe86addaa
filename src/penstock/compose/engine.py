"""One embedded engine."""

import logging
from collections.abc import Sequence
from pathlib import Path

from penstock.compose.process import log_to_stdout, run
from penstock.core.settings import Settings


def run_engine(
    settings: Settings,
    directory: str,
    model: str | None,
    *,
    provenance: str | None = None,
    trusted: Sequence[str] = (),
) -> None:
    """One embedded engine, until SIGTERM. With `provenance` it loads only what one of the `trusted` keys has signed, or the version whose digest is.

    Raises:
        PenstockError: if the model cannot be loaded or the address cannot be had.
    """
    from penstock.core.digests import is_digest
    from penstock.engine.provenance import verify_build
    from penstock.engine.serve import serve_engine

    def started(url: str) -> None:
        logging.getLogger("penstock.engine").info("answers at %s", url)

    log_to_stdout()
    if provenance is not None:
        keys = [text for text in trusted if not is_digest(text)]
        expected = next((text for text in trusted if is_digest(text)), None)
        digest = verify_build(Path(directory), Path(provenance), keys, expected=expected)
        logging.getLogger("penstock.engine").info("every byte is of %s%s", digest, ", which was signed" if keys else "")
    signed = provenance is not None and any(not is_digest(text) for text in trusted)
    run(
        serve_engine(
            directory=Path(directory).absolute(), model=model, settings=settings.engine, started=started, signed=signed
        )
    )
