"""Clients, transports and a sandbox for the tests of the client. None of them needs Airflow."""

from __future__ import annotations

import contextlib

import pytest

from tavus_provider.client.api import TavusClient
from tavus_provider.client.config import ClientConfig, ClientOptions
from tavus_provider.client.transport import Transport
from tavus_provider.sandbox import Sandbox

API = "https://tavusapi.com"
KEY = "client-key-5d1c/9a+7e"
REPLICA = "r1a0c5e8f3b2"
"""A replica of the built-in account of the sandbox that nothing uses."""
GONE = "r00dead00bee"
"""An id that the sandbox does not know."""


@pytest.fixture
def transport(clock):
    """Return a function that makes transports whose waits take no time: ``transport(url, **options)``."""
    with contextlib.ExitStack() as stack:

        def make(url: str = "https://tavusapi.com", *, key: str = KEY, **options: object) -> Transport:
            return stack.enter_context(
                contextlib.closing(Transport(ClientConfig(url, key, ClientOptions(**options))))
            )

        yield make


@pytest.fixture
def make_client(clock):
    """Return a function that makes clients whose waits take no time: ``make_client(url, **options)``."""
    with contextlib.ExitStack() as stack:

        def make(url: str = "https://tavusapi.com", *, key: str = KEY, **options: object) -> TavusClient:
            config = ClientConfig(url, key, ClientOptions(**{"timeout": 20, **options}))
            return stack.enter_context(TavusClient(config))

        yield make


@pytest.fixture(scope="session")
def running_sandbox():
    with Sandbox(key="sandbox-key-8f2b6c91") as running:
        yield running


@pytest.fixture
def sandbox(running_sandbox):
    """A sandbox with its built-in account. All tests share the server, not the state."""
    if not running_sandbox._server:  # a test closed it
        running_sandbox.__enter__()
    running_sandbox.reset()
    return running_sandbox


@pytest.fixture
def client(make_client, sandbox):
    """A client of the sandbox."""
    return make_client(sandbox.url, key=sandbox.key, timeout=5)


@pytest.fixture
def mocked_client(make_client):
    """A client of https://tavusapi.com, for ``requests_mock``."""
    return make_client()


def serve_pages(rows: list[dict[str, object]], *, clamp: int = 100):
    """Return a response function for ``requests_mock`` that serves a list page by page."""

    def respond(request, _):
        number, limit = int(request.qs["page"][0]), min(int(request.qs["limit"][0]), clamp)
        return {"data": rows[(number - 1) * limit : number * limit], "total_count": len(rows)}

    return respond
