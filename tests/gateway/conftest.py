"""One gateway process for the whole room; each test publishes its own configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import ClientSession

from .fakes import CANARIES, GatewayProcess


@pytest.fixture(scope="session")
def shared_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(tmp_path_factory.mktemp("gw")).start()
    yield gateway
    code = gateway.stop()
    log = gateway.log.read_text()
    assert code == 0, log
    assert not any(canary in log for canary in CANARIES)
    assert "Traceback" not in log


@pytest.fixture
def gateway(shared_gateway: GatewayProcess) -> GatewayProcess:
    return shared_gateway


@pytest.fixture
async def client(gateway: GatewayProcess) -> AsyncIterator[ClientSession]:
    async with ClientSession(gateway.url) as session:
        yield session
