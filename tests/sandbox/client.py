"""Requests to a sandbox, for the tests of the sandbox."""

import time
from collections.abc import Callable
from typing import Any

import requests

from tavus_provider.sandbox import Sandbox

ANNA = "r1a0c5e8f3b2"
STOCK = "rb1f8c4d6e0a"


def send(tavus: Sandbox, method: str, path: str, **options: Any) -> requests.Response:
    headers = {"x-api-key": tavus.key, **options.pop("headers", {})}
    return requests.request(method, tavus.url + path, headers=headers, timeout=20, **options)


def listing(tavus: Sandbox, path: str = "/v2/replicas", **params: Any) -> list[dict[str, Any]]:
    response = send(tavus, "GET", path, params={"limit": 100, **params})
    assert response.status_code == 200, response.text
    rows = response.json()["data"]
    assert isinstance(rows, list)
    return rows


def delete_with_short_timeout(tavus: Sandbox) -> None:
    headers = {"x-api-key": tavus.key}
    requests.delete(f"{tavus.url}/v2/replicas/{ANNA}", headers=headers, timeout=(20, 0.05))


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait for a condition that must become true; the limit of 20 s only ends a broken test."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true within 20 s"
        time.sleep(0.001)


def row_of(tavus: Sandbox, replica_id: str) -> dict[str, Any]:
    return next(row for row in tavus.state()["replicas"] if row["replica_id"] == replica_id)


def many(count: int) -> dict[str, Any]:
    return {"replicas": [{"replica_id": f"r{n:010x}", "age": "100d"} for n in range(count)]}
