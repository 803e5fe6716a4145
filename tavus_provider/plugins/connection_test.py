"""
Make the Test button of Airflow's connection list work for Tavus connections without a port.

Airflow 3.3.0, 3.3.1 and 3.3.2 answer "Bad Request": their UI sends ``port: 0`` for a connection without a
port, and their API compares that with the stored null and takes it for a change of the server
(https://github.com/apache/airflow/pull/73298). Tavus connections have no port.

This module imports the standard library only: a plugin is loaded in every process of Airflow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import metadata
from typing import Any, Final

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

FIRST_AFFECTED: Final = (3, 3, 0)
LAST_AFFECTED: Final = (3, 3, 2)
"""The newest version that is known. Raise it if a newer one still has the bug."""

_PATH: Final = "/api/v2/connections/test"
_MAX_BODY: Final = 65_536
"""Bytes of a request that are read at most; a test of a connection is much shorter."""


def airflow_version() -> str | None:
    """Return the version of Airflow that is installed, without importing it; ``None`` if it is unknown."""
    # apache-airflow may be absent: apache-airflow-core can be installed alone.
    for name in ("apache-airflow-core", "apache-airflow"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def is_affected(version: str | None) -> bool:
    """
    Return whether this version of Airflow has the bug: 3.3.0 to 3.3.2, with their pre-releases.

    :param version: for example ``3.3.2``; ``None`` if it is unknown
    """
    release = re.match(r"(\d+)\.(\d+)\.(\d+)", version or "")
    return release is not None and FIRST_AFFECTED <= tuple(map(int, release.groups())) <= LAST_AFFECTED


class DropZeroPortMiddleware:
    """
    Remove ``port: 0`` from requests to test a Tavus connection; pass on every other request unchanged.

    The plugin installs it only on versions of Airflow for which :func:`is_affected` is true. It permits
    nothing that Airflow would refuse otherwise: without a port in the request, Airflow tests the connection
    with its stored port, and it still compares the host.

    :param app: the ASGI application that handles the request
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one request; arguments as in the ASGI specification."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].endswith(_PATH):
            scope, receive = await _drop_zero_port(scope, receive)
        await self.app(scope, receive, send)


async def _drop_zero_port(scope: Message, receive: Receive) -> tuple[Message, Receive]:
    body, messages, more = b"", [], True
    while more and len(body) <= _MAX_BODY:
        messages.append(await receive())
        body += messages[-1].get("body", b"")
        more = messages[-1].get("more_body", False)
    try:
        connection = json.loads(body) if len(body) <= _MAX_BODY else None
    except (ValueError, RecursionError):
        connection = None
    if (
        not isinstance(connection, dict)
        or connection.get("conn_type") != "tavus"
        or connection.get("port") != 0
    ):
        return scope, _replay(messages, receive)
    body = json.dumps({name: value for name, value in connection.items() if name != "port"}).encode()
    headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-length"]
    headers.append((b"content-length", str(len(body)).encode()))
    message = {"type": "http.request", "body": body, "more_body": False}
    return {**scope, "headers": headers}, _replay([message], receive)


def _replay(messages: list[Message], receive: Receive) -> Receive:
    """Return a ``receive`` that returns these messages first."""

    async def next_message() -> Message:
        return messages.pop(0) if messages else await receive()

    return next_message
