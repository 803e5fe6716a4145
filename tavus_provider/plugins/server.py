"""
Serves the files of the Tavus page. They hold no data: the browser reads what it shows from Airflow's API.

Imports nothing: a plugin is loaded in every process of Airflow, and only the API server serves pages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from functools import cached_property
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

_HEADERS = (
    # Nothing is fetched from elsewhere, no text becomes script or style, and only Airflow may frame the page.
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
)


class PageServer:
    """An ASGI application with the page at ``/``; the web framework is imported by its first request."""

    @cached_property
    def files(self) -> Any:
        """Starlette's server of static files; Airflow brings it."""
        from starlette.staticfiles import StaticFiles

        return StaticFiles(directory=Path(__file__).with_name("www"), html=True)

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        """Answer one request, as ASGI wants it."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        await self.files(scope, receive, with_headers)
