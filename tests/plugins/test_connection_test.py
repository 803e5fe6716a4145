from __future__ import annotations

import json
from importlib import metadata

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from tavus_provider.plugins.connection_test import DropZeroPortMiddleware, airflow_version, is_affected

PATH = "/api/v2/connections/test"
SENT_BY_THE_UI = {"conn_type": "tavus", "connection_id": "c", "host": "h", "password": "***", "port": 0}


@pytest.fixture
def forward():
    """Send a request through the middleware and return the body that the application received."""
    app = FastAPI()
    app.add_middleware(DropZeroPortMiddleware)

    @app.api_route("/{path:path}", methods=["GET", "POST", "PATCH"])
    async def echo(request: Request):
        body = await request.body()
        return {"body": body.decode(), "length": int(request.headers["content-length"]), "real": len(body)}

    client = TestClient(app)

    def send(body, *, path=PATH, method="POST"):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        received = client.request(method, path, content=content).json()
        assert received["length"] == received["real"]
        return received["body"].encode()

    return send


@pytest.mark.parametrize("path", [PATH, f"/airflow{PATH}"])
def test_zero_port_is_removed_from_connection_tests(forward, path):
    expected = {name: value for name, value in SENT_BY_THE_UI.items() if name != "port"}
    assert json.loads(forward(SENT_BY_THE_UI, path=path)) == expected


@pytest.mark.parametrize(
    ("body", "request_line"),
    [
        pytest.param({**SENT_BY_THE_UI, "port": 443}, {}, id="port-443"),
        pytest.param({**SENT_BY_THE_UI, "port": None}, {}, id="port-null"),
        pytest.param({**SENT_BY_THE_UI, "conn_type": "http"}, {}, id="other-connection-type"),
        pytest.param(SENT_BY_THE_UI, {"path": "/api/v2/connections"}, id="create-connection"),
        pytest.param(
            SENT_BY_THE_UI, {"path": "/api/v2/connections/c", "method": "PATCH"}, id="update-connection"
        ),
        pytest.param(SENT_BY_THE_UI, {"method": "PATCH"}, id="other-method"),
        pytest.param(b"{not json", {}, id="invalid-json"),
        pytest.param(b"[" * 60_000, {}, id="deeply-nested"),
        pytest.param([SENT_BY_THE_UI], {}, id="list"),
        pytest.param({**SENT_BY_THE_UI, "extra": "x" * 200_000}, {}, id="too-long"),
    ],
)
def test_other_requests_are_passed_on_unchanged(forward, body, request_line):
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert forward(body, **request_line) == sent


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ("3.1.8", False),
        ("3.2.9", False),
        ("3.3.0rc1", True),
        ("3.3.0", True),
        ("3.3.1", True),
        ("3.3.2", True),
        ("3.3.2+local", True),
        ("3.3.3", False),
        ("3.4.0", False),
        ("3.10.1", False),
        ("unreadable", False),
        (None, False),
    ],
)
def test_versions_with_the_bug(version, affected):
    assert is_affected(version) is affected


@pytest.mark.parametrize(
    ("installed", "version"),
    [
        ({"apache-airflow-core": "3.3.2", "apache-airflow": "3.1.8"}, "3.3.2"),
        ({"apache-airflow": "3.1.8"}, "3.1.8"),
        ({}, None),
    ],
    ids=["core", "airflow-only", "none"],
)
def test_version_is_that_of_the_installed_distribution(monkeypatch, installed, version):
    def look_up(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", look_up)
    assert airflow_version() == version


def test_version_of_this_environment_is_found():
    from airflow import __version__

    assert airflow_version() == __version__
