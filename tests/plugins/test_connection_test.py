from __future__ import annotations

import json

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from tavus_provider.plugins.connection_test import DropZeroPortMiddleware

PATH = "/api/v2/connections/test"
AS_THE_UI_SENDS_IT = {"conn_type": "tavus", "connection_id": "c", "host": "h", "password": "***", "port": 0}


@pytest.fixture
def came():
    """Send a request through the middleware and return what the application was given."""
    app = FastAPI()
    app.add_middleware(DropZeroPortMiddleware)

    @app.api_route("/{path:path}", methods=["GET", "POST", "PATCH"])
    async def echo(request: Request):
        body = await request.body()
        return {"body": body.decode(), "length": int(request.headers["content-length"]), "real": len(body)}

    client = TestClient(app)

    def send(body, *, path=PATH, method="POST"):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        seen = client.request(method, path, content=content).json()
        assert seen["length"] == seen["real"]
        return seen["body"].encode()

    return send


@pytest.mark.parametrize("path", [PATH, f"/airflow{PATH}"])
def test_a_test_without_a_port_no_longer_names_one(came, path):
    expected = {name: value for name, value in AS_THE_UI_SENDS_IT.items() if name != "port"}
    assert json.loads(came(AS_THE_UI_SENDS_IT, path=path)) == expected


@pytest.mark.parametrize(
    ("body", "more"),
    [
        pytest.param({**AS_THE_UI_SENDS_IT, "port": 443}, {}, id="a port"),
        pytest.param({**AS_THE_UI_SENDS_IT, "port": None}, {}, id="null"),
        pytest.param({**AS_THE_UI_SENDS_IT, "conn_type": "http"}, {}, id="another type"),
        pytest.param(AS_THE_UI_SENDS_IT, {"path": "/api/v2/connections"}, id="another path"),
        pytest.param(AS_THE_UI_SENDS_IT, {"path": "/api/v2/connections/c", "method": "PATCH"}, id="saving"),
        pytest.param(AS_THE_UI_SENDS_IT, {"method": "PATCH"}, id="another method"),
        pytest.param(b"{not json", {}, id="no JSON"),
        pytest.param(b"[" * 60_000, {}, id="deep"),
        pytest.param([AS_THE_UI_SENDS_IT], {}, id="a list"),
        pytest.param({**AS_THE_UI_SENDS_IT, "extra": "x" * 200_000}, {}, id="longer than any connection"),
    ],
)
def test_everything_else_arrives_as_it_was_sent(came, body, more):
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert came(body, **more) == sent
