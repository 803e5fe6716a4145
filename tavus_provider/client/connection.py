"""
A ``requests`` session that is safe for requests that cannot be undone.

- No proxy, credentials or certificates from the environment, no cookies, no redirects, no retries.
- One deadline for the whole request, from connecting to the last byte of the response. ``requests`` only
  limits each read, so a server that sends a byte now and then could stretch it without end.
- Interim responses (1xx, but not 101) are skipped, up to a number. The connection is not used again.
- A connection with bytes left after a response is closed. Otherwise they would be read as the response
  to the next request.
- :data:`current_request` tells the caller what the socket knows: whether the request was sent, and whether
  a response began.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from tavus_provider import __version__

MAX_INTERIM_RESPONSES: Final = 32
"""Limit of 1xx responses before the final response to one request."""


class UnexpectedRequestError(Exception):
    """The request about to be sent is not an expected one. Nothing was sent."""


class RequestState:
    """
    What is known of one request while it is sent and its response is read.

    :param seconds: total time for the request
    :param expected: pairs of method and target that may be sent
    """

    def __init__(self, seconds: float, *expected: tuple[str, str]) -> None:
        self.expected = expected
        self.deadline = time.monotonic() + seconds
        self.sent: bool | None = None
        """``None`` until a connection is needed; then whether a byte of the request may have been sent."""
        self.received = False
        self.expired = False
        self.interim_responses = 0

    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()


class _CurrentRequest(threading.local):
    """
    The request of the current thread.

    It carries the deadline to the socket through two libraries that have no parameter for it.
    """

    _state: RequestState | None = None

    def begin(self, seconds: float, *expected: tuple[str, str]) -> RequestState:
        self._state = RequestState(seconds, *expected)
        return self._state

    def end(self) -> None:
        self._state = None

    def state(self) -> RequestState:
        return self._state or RequestState(0)


current_request = _CurrentRequest()


class _DeadlineStream(io.RawIOBase):
    """Bytes of one response. Each read waits at most until the deadline of the request."""

    def __init__(self, sock: socket.socket, stream: io.RawIOBase, state: RequestState) -> None:
        self._sock = sock
        self._stream = stream
        self._state = state
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.ended:
            return 0
        seconds = self._state.seconds_left()
        try:
            if seconds <= 0:
                raise TimeoutError("the request took too long")
            self._sock.settimeout(seconds)
            count = self._stream.readinto(buffer) or 0
        except TimeoutError:
            self._state.expired = True
            raise
        self._state.received = self._state.received or count > 0
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()

    def had_interim_response(self) -> bool:
        """Whether the final response came after a 1xx response, which some servers send instead of it."""
        return self._state.interim_responses > 0

    def has_decrypted_bytes(self) -> bool:
        """Whether TLS holds decrypted bytes, which are not visible on the socket."""
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def shut_down(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


class _ResponseReader(io.BufferedReader):
    """Shut down the connection if bytes are left after the response, or an interim response preceded it."""

    def close(self) -> None:
        stream = self.raw
        if not self.closed and isinstance(stream, _DeadlineStream):
            stream.ended = True
            if stream.had_interim_response() or self.peek(1) or stream.has_decrypted_bytes():
                stream.shut_down()
        super().close()


class _HTTPResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        # Wrap http.client's own stream: it keeps the socket open after "Connection: close".
        self.fp = _ResponseReader(_DeadlineStream(sock, self.fp.detach(), current_request.state()))

    def _read_status(self) -> tuple[str, int, str]:
        # http.client skips only 100, and takes 102 and 103 for the final response.
        state = current_request.state()
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # private, not in the stubs
            if not 100 <= status < 200 or status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                return version, status, reason
            state.interim_responses += 1
            if state.interim_responses > MAX_INTERIM_RESPONSES:
                raise http.client.HTTPException("too many interim responses")
            http.client.parse_headers(self.fp)

    def _read_next_chunk_size(self) -> int:
        # http.client reads a chunk of negative size to the end of the stream, past every size limit.
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]  # private, not in the stubs
        if size < 0:
            raise ValueError("negative chunk size")
        return size


class _HTTPConnection(urllib3.connection.HTTPConnection):
    response_class = _HTTPResponse
    debuglevel = 0  # the debug output of http.client contains the headers and so the key

    def connect(self) -> None:
        try:
            current_request.state().sent = False
            super().connect()
        finally:
            current_request.state().sent = False  # the CONNECT to a proxy is not the request

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        # The TLS handshake gets the rest of the time. urllib3 would give it the whole timeout again.
        sock.settimeout(max(0.001, current_request.state().seconds_left()))
        return sock

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        # The last check, on what is really sent, whatever the libraries above did to the request.
        if (method, url) not in current_request.state().expected:
            raise UnexpectedRequestError
        super().putrequest(method, url, *args, **kwargs)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        current_request.state().sent = True
        super().send(data)


class _HTTPSConnection(_HTTPConnection, urllib3.connection.HTTPSConnection):
    """The same over TLS."""


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


def _tls_context() -> ssl.SSLContext:
    """Return a context that ignores SSLKEYLOGFILE, unlike the default contexts of ssl and urllib3."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False
    return context


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=_tls_context(), **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        kwargs |= {"ssl_context": _tls_context(), "proxy_ssl_context": _tls_context()}
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return manager


class Session(requests.Session):
    """
    A session that adds nothing to a request: no environment, cookies, redirects or retries.

    :param concurrency: maximum number of open connections
    """

    def __init__(self, concurrency: int) -> None:
        super().__init__()
        self.trust_env = False
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.headers.clear()
        self.headers.update(
            {
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": f"airflow-provider-tavus/{__version__}",
            }
        )
        adapter = _Adapter(max_retries=0, pool_connections=1, pool_maxsize=concurrency, pool_block=True)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """
        Return the request unchanged: nothing in it needs to be merged, quoted or encoded.

        :param request: method, URL and headers, already validated
        """
        prepared = requests.PreparedRequest()
        prepared.method = request.method
        prepared.url = request.url
        prepared.headers = CaseInsensitiveDict({**self.headers, **request.headers})
        if request.method != "GET":
            prepared.headers["Content-Length"] = "0"  # as requests does; some proxies require it
        return prepared

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return ``None``: redirects are neither followed nor parsed."""
        return
