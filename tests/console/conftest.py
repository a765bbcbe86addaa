"""A furnished house for a whole file of tests, and one of its own for a test that changes it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.console.fake_gateway import FakeGateway
from tests.console.house import ADMIN, House, furnish
from tests.console.serving import serving


@pytest.fixture(scope="session")
def gateway_server() -> Iterator[tuple[FakeGateway, str]]:
    gateway = FakeGateway()
    with serving(gateway.app) as url:
        yield gateway, url


@pytest.fixture(scope="session")
def gateway(gateway_server: tuple[FakeGateway, str]) -> FakeGateway:
    return gateway_server[0]


@pytest.fixture(scope="module")
def house(gateway_server: tuple[FakeGateway, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Furnished; not to be changed."""
    with House(tmp_path_factory.mktemp("house"), gateway_server[1]).running() as built:
        furnish(built)
        yield built


@pytest.fixture
def new_house(gateway_server: tuple[FakeGateway, str], tmp_path: Path) -> Iterator[House]:
    """Empty, but for the two keys."""
    with House(tmp_path, gateway_server[1]).running() as built:
        yield built


@pytest.fixture
async def visitor(house: House) -> AsyncIterator[httpx.AsyncClient]:
    """A browser without script that nobody has signed in with."""
    async with httpx.AsyncClient(base_url=house.url, timeout=60) as client:
        yield client


@pytest.fixture
async def newcomer(new_house: House) -> AsyncIterator[httpx.AsyncClient]:
    """The same, of the empty house."""
    async with httpx.AsyncClient(base_url=new_house.url, timeout=60) as client:
        yield client


async def sign_in(client: httpx.AsyncClient, key: str = ADMIN) -> httpx.Response:
    page = await client.get("/sign-in")
    return await client.post("/sign-in", data={"csrf": token(page.text), "key": key, "next": "/"})


def token(page: str) -> str:
    return page.partition('name="csrf" value="')[2].partition('"')[0]
