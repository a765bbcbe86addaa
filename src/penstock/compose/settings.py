"""What a process learns from its settings before it runs anything: where they stand, and what follows from them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.core.errors import BadRequest
from penstock.core.settings import Settings, load_settings
from penstock.supervisor.ports import reachable


def read_settings(flags: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
    """The settings from `penstock.toml` (or the file that PENSTOCK_CONFIG names), the environment and `flags`.

    Raises:
        BadRequest: if the file is not there or a setting is wrong; the message names it.
    """
    environ = os.environ if environ is None else environ
    named = environ.get("PENSTOCK_CONFIG")
    file = Path(named or "penstock.toml")
    if named and not file.is_file():
        raise BadRequest(f"The settings file {named} is not there; PENSTOCK_CONFIG names it.", param="PENSTOCK_CONFIG")
    return load_settings(environ, file if file.is_file() else None, flags)


def service_token(settings: Settings) -> str:
    """What processes show to control: the setting, or the text of DATA/service.token; "" if there is neither."""
    if settings.service_token:
        return settings.service_token
    try:
        return (Path(settings.data) / "service.token").read_text().strip()
    except FileNotFoundError:
        return ""


def gateway_url(settings: Settings) -> str:
    """Where this machine reaches the gateway."""
    scheme = "https" if settings.gateway.tls_certificate else "http"
    return f"{scheme}://{reachable(settings.gateway.host)}:{settings.gateway.port}"


def analytics_folder(settings: Settings) -> Path:
    """Where the analytical store is, whether there is one or not."""
    return Path(settings.analytics.folder or Path(settings.data) / "analytics").absolute()


def starter_folder(settings: Settings) -> Path | None:
    """Where the starter versions are: the setting, or those of the source tree; None to begin without any.

    Raises:
        BadRequest: if the setting names no folder.
    """
    if settings.empty:
        return None
    if settings.starter:
        folder = Path(settings.starter)
        if not folder.is_dir():
            raise BadRequest(
                f"There is no folder of starter models at {folder}; PENSTOCK_STARTER names it, and --empty goes without.",
                param="starter",
            )
        return folder
    folder = Path(__file__).parents[3] / "examples" / "support_bot" / "models"
    return folder if folder.is_dir() else None
