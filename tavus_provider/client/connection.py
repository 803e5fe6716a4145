"""
``requests`` without what makes it unfit for an irrevocable request.

No environment, cookies, redirects or hidden retries; a deadline for the whole exchange, which a drip
does not stretch; and a connection on which bytes are left after an answer is not used again. What the
socket knows of an exchange (was anything sent, did anything come back) is told to the thread that sent it.
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
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from tavus_provider import __version__


class NotMeant(Exception):
    """The request that was about to leave is not the one that was meant; nothing has left."""


class Call:
    """What is known of the exchange under way in this thread, and how the request in it may begin."""

    def __init__(self, seconds: float, *meant: tuple[str, str]) -> None:
        self.meant = meant
        self.deadline = time.monotonic() + seconds
        self.sent: bool | None = None
        self.received = False
        self.expired = False


class _Exchanges(threading.local):
    """Hands the exchange of this thread down to the socket, past two libraries that know no deadline."""

    _call: Call | None = None

    def begin(self, seconds: float, *meant: tuple[str, str]) -> Call:
        self._call = Call(seconds, *meant)
        return self._call

    def end(self) -> None:
        self._call = None

    def call(self) -> Call:
        return self._call or Call(0)


exchanges = _Exchanges()


class _Incoming(io.RawIOBase):
    """The bytes of one answer: each wait for more is bounded by what is left of the whole exchange."""

    def __init__(self, sock: socket.socket, stream: io.RawIOBase, call: Call) -> None:
        self._sock = sock
        self._stream = stream
        self._call = call
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.ended:
            return 0
        left = self._call.deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError("the exchange took too long")
            self._sock.settimeout(left)
            count = self._stream.readinto(buffer) or 0
        except TimeoutError:
            self._call.expired = True
            raise
        self._call.received = self._call.received or count > 0
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()

    def pending(self) -> bool:
        """Whether TLS holds decrypted bytes that no look at the socket would show."""
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


class _Reader(io.BufferedReader):
    """Hangs up when bytes are left after the answer: they would be taken for the next one."""

    def close(self) -> None:
        incoming = self.raw
        if not self.closed and isinstance(incoming, _Incoming):
            incoming.ended = True
            if self.peek(1) or incoming.pending():
                incoming.hang_up()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        # What http.client opened keeps the socket open after a "Connection: close": read through it.
        self.fp = _Reader(_Incoming(sock, self.fp.detach(), exchanges.call()))

    def _read_next_chunk_size(self) -> int:
        # Of a chunk of less than nothing http.client would read all there is, past every limit of bytes.
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:
            raise ValueError("a chunk has no size")
        return size


class _HTTPConnection(urllib3.connection.HTTPConnection):
    response_class = _Response
    debuglevel = 0  # http.client's own would print the headers, and with them the key

    def connect(self) -> None:
        try:
            exchanges.call().sent = False
            super().connect()
        finally:
            exchanges.call().sent = False  # to open a tunnel through a proxy is not to send the request

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        # A handshake has what is left, not as long again as it took to connect.
        sock.settimeout(max(0.001, exchanges.call().deadline - time.monotonic()))
        return sock

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        # The last fence: this is what leaves, whatever the libraries above have made of the request.
        if (method, url) not in exchanges.call().meant:
            raise NotMeant
        super().putrequest(method, url, *args, **kwargs)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        exchanges.call().sent = True
        super().send(data)


class _HTTPSConnection(_HTTPConnection, urllib3.connection.HTTPSConnection):
    """The same over TLS."""


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


def _tls() -> ssl.SSLContext:
    """A context that writes no SSLKEYLOGFILE, as those of ssl and urllib3 do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False
    return context


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=_tls(), **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        kwargs |= {"ssl_context": _tls(), "proxy_ssl_context": _tls()}
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return manager


class Session(requests.Session):
    """A session that adds nothing of its own: no environment, cookies, redirects or retries."""

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """
        Return the request as it is; there is nothing in it that would have to be merged, quoted or encoded.

        :param request: method, URL and headers, each checked and fit to be sent
        """
        prepared = requests.PreparedRequest()
        prepared.method = request.method
        prepared.url = request.url
        prepared.headers = CaseInsensitiveDict({**self.headers, **request.headers})
        if request.method == "DELETE":
            prepared.headers["Content-Length"] = "0"  # as requests does; there are proxies that ask for it
        return prepared

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

    def get_redirect_target(self, resp: requests.Response) -> None:
        """No redirect leads anywhere, and none is even looked into."""
        return
