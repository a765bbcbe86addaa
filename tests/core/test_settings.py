from pathlib import Path

import pytest

from penstock.core.errors import BadRequest
from penstock.core.settings import load_settings


def test_flags_win_over_variables_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text('data = "/from-file"\n[gateway]\nport = 1\nworkers = 1\nhost = "h"\n')
    settings = load_settings(
        {"PENSTOCK_GATEWAY_PORT": "2", "PENSTOCK_GATEWAY_WORKERS": "2"},
        file,
        {"gateway.workers": 3, "gateway.port": None},
    )
    assert (settings.data, settings.gateway.host, settings.gateway.port, settings.gateway.workers) == (
        "/from-file",
        "h",
        2,
        3,
    )


@pytest.mark.parametrize("variable", ["PENSTOCK_GATEWAY_PROT", "PENSTOCK_PROT"])
def test_an_unknown_key_is_refused_by_name(variable: str) -> None:
    with pytest.raises(BadRequest, match="prot"):
        load_settings({variable: "1"})


def test_a_wrong_type_is_refused_with_its_path() -> None:
    with pytest.raises(BadRequest, match=r"gateway\.port"):
        load_settings({"PENSTOCK_GATEWAY_PORT": "many"})


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text("port: 1")
    with pytest.raises(BadRequest, match="not TOML"):
        load_settings({}, file)
