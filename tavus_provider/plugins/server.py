"""
Serve the files of the Tavus page.

The files hold no data: the browser reads Airflow's API. This module imports no web framework, because a
plugin is loaded in every process of Airflow and only the API server serves pages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from functools import cached_property
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

_HEADERS = (
    # The page loads only its own files, runs no inline script or style, and only Airflow may frame it.
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
    """ASGI application that serves the page at ``/``. The first request imports the web framework."""

    @cached_property
    def files(self) -> Any:
        """Starlette's server for static files; Airflow depends on Starlette."""
        from starlette.staticfiles import StaticFiles

        return StaticFiles(directory=Path(__file__).with_name("www"), html=True)

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        """Respond to one request; arguments as in the ASGI specification."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        await self.files(scope, receive, with_headers)
