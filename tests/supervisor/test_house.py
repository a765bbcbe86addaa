from pathlib import Path

from penstock.core.settings import ControlSettings, GatewaySettings, Settings, load_settings
from penstock.runtime.port import ReplicaSpec
from penstock.supervisor.house import House, child_environment, settings_environment


def house(settings: Settings) -> House:
    return House(program=("/bin/penstock",), data=Path("/data"), settings=settings, environment="")


def test_settings_travel_whole_to_children() -> None:
    settings = Settings(
        data="/data",
        empty=True,
        gateway=GatewaySettings(port=9000, workers=3, drain_s=2.5),
        control=ControlSettings(database="postgresql+asyncpg://u:p@h/d"),
    )
    assert load_settings(settings_environment(settings)) == settings
    assert settings_environment(Settings()) == {}


def test_children_see_the_resolved_settings_alone() -> None:
    found = child_environment({"PATH": "/bin", "PENSTOCK_GATEWAY_PORT": "1"}, Settings(data="/data"))
    assert found == {"PATH": "/bin", "PENSTOCK_DATA": "/data"}


def test_every_worker_has_its_own_name_and_the_same_port() -> None:
    gateways = house(Settings(gateway=GatewaySettings(port=9000, workers=2))).gateways()
    assert [spec.name for spec in gateways] == ["gateway-0", "gateway-1"]
    assert {spec.port for spec in gateways} == {9000}
    assert gateways[1].argv == (
        "/bin/penstock", "gateway", "--gateway-port", "9000", "--worker", "1", "--data", "/data",
    )  # fmt: skip


def test_grpc_has_a_process_of_its_own_unless_its_port_is_0() -> None:
    (spec,) = house(Settings(gateway=GatewaySettings(grpc_port=9001))).grpc()
    assert spec.argv == ("/bin/penstock", "grpc", "--grpc-port", "9001", "--data", "/data")
    assert not house(Settings(gateway=GatewaySettings(grpc_port=0))).grpc()


def test_an_engine_is_told_what_to_load_and_where_to_listen() -> None:
    spec = house(Settings()).engine(ReplicaSpec(id="bot-0", directory="/m", model="bot:v1"), 8090)
    assert spec.argv == (
        "/bin/penstock", "engine", "/m", "--port", "8090", "--model", "bot:v1", "--data", "/data",
    )  # fmt: skip
    assert spec.url == "http://127.0.0.1:8090"


def test_an_examiner_is_a_process_of_its_own_kind() -> None:
    spec = house(Settings()).examiner(ReplicaSpec(id="examiner", directory="", model="", task="examiner"))
    assert spec.argv == ("/bin/penstock", "examiner", "--data", "/data")
    assert (spec.kind, spec.port, spec.url) == (
        "examiner",
        0,
        "",
    )  # it takes no requests: nobody probes it, no gateway hears of it
