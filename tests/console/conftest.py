"""A console over servers of its own."""

import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from starlette.applications import Starlette

from penstock.console.app import build_console
from tests.console.fake_api import ADMIN, FakeApi
from tests.console.fake_gateway import KEY, FakeGateway
from tests.console.serving import serving

SECRET = b"a secret of the control processes"


class Site:
    """A console, the API and the gateway behind it."""

    def __init__(self, api: FakeApi, gateway: FakeGateway, gateway_url: str, client: httpx.AsyncClient) -> None:
        self.api = api
        self.gateway = gateway
        self.gateway_url = gateway_url
        self.app: Starlette = build_console(
            api=client,
            gateway=httpx.AsyncClient(),
            gateway_url=gateway_url,
            secret=SECRET,
            playground_key=lambda: KEY,
        )

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://console.test")


@pytest.fixture(scope="session")
def gateway_server() -> Iterator[tuple[FakeGateway, str]]:
    gateway = FakeGateway()
    with serving(gateway.app) as url:
        yield gateway, url


@pytest.fixture
def site(gateway_server: tuple[FakeGateway, str]) -> Site:
    api = FakeApi(time.time())
    client = httpx.AsyncClient(transport=httpx.ASGITransport(api.app), base_url="http://api.test")
    return Site(api, *gateway_server, client)


@pytest.fixture
async def visitor(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    """A browser without script that nobody has signed in with."""
    async with site.client() as client:
        yield client


async def sign_in(client: httpx.AsyncClient, key: str = ADMIN) -> httpx.Response:
    page = await client.get("/sign-in")
    return await client.post("/sign-in", data={"csrf": token(page.text), "key": key, "next": "/"})


def token(page: str) -> str:
    return page.partition('name="csrf" value="')[2].partition('"')[0]
