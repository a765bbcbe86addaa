import socket

import pytest

from penstock.core.errors import Conflict, Unavailable
from penstock.supervisor.house import first_free_port
from penstock.supervisor.ports import check_port, is_free, reachable


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_in_use_is_named_with_the_flag(shared: bool) -> None:
    with socket.socket() as taken:
        if shared:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=f"Port {port} on 127.0.0.1 is in use.*--gateway-port"):
            check_port("127.0.0.1", port, flag="--gateway-port")
        assert not is_free("127.0.0.1", port)
    assert is_free("127.0.0.1", port)


def test_an_address_that_is_not_ours_is_told() -> None:
    with pytest.raises(Unavailable, match=r"192\.0\.2\.1"):
        check_port("192.0.2.1", 8080, flag="--gateway-port")


def test_the_first_free_port() -> None:
    assert first_free_port(8090, {8090, 8092}, lambda port: port != 8091) == 8093
    with pytest.raises(ValueError, match="no port"):
        first_free_port(65535, {65535}, lambda _port: True)


def test_every_interface_is_reached_at_the_loopback() -> None:
    assert reachable("0.0.0.0") == reachable("") == "127.0.0.1"
    assert reachable("10.0.0.7") == "10.0.0.7"
