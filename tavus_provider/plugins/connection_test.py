"""
The Test button of Airflow's connection list, for connections that were saved without a port.

Airflow 3.3.2 answers "Bad Request" to it: its UI sends ``port: 0`` for "no port", and its API compares that
with the stored null as if another server were meant (https://github.com/apache/airflow/pull/73298). A Tavus
connection has no port. Imports nothing but ``json``: a plugin is loaded in every process of Airflow.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_PATH = "/api/v2/connections/test"
_MAX_BODY = 65_536


class DropZeroPortMiddleware:
    """
    Take ``port: 0`` out of a request to test a Tavus connection; let everything else through untouched.

    Less is asked for than before, never more: without a port Airflow tests the stored connection with its
    stored port, and the host is compared as ever.

    :param app: the ASGI application that answers
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI wants it."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].endswith(_PATH):
            scope, receive = await _without_port_0(scope, receive)
        await self.app(scope, receive, send)


async def _without_port_0(scope: Message, receive: Receive) -> tuple[Message, Receive]:
    body, messages, more = b"", [], True
    while more and len(body) <= _MAX_BODY:
        messages.append(await receive())
        body += messages[-1].get("body", b"")
        more = messages[-1].get("more_body", False)
    try:
        asked = json.loads(body) if len(body) <= _MAX_BODY else None
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict) or asked.get("conn_type") != "tavus" or asked.get("port") != 0:
        return scope, _first(messages, receive)
    body = json.dumps({name: value for name, value in asked.items() if name != "port"}).encode()
    headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-length"]
    length = (b"content-length", str(len(body)).encode())
    changed = {"type": "http.request", "body": body, "more_body": False}
    return {**scope, "headers": [*headers, length]}, _first([changed], receive)


def _first(messages: list[Message], receive: Receive) -> Receive:
    """Hand out what was read already, then what comes."""

    async def next_one() -> Message:
        return messages.pop(0) if messages else await receive()

    return next_one
