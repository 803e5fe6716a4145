"""
A ``requests`` session that is safe for requests that cannot be undone.

- No proxy, credentials or certificates from the environment, no cookies, no redirects, no retries.
- One deadline for the whole request, from connecting to the last byte of the response. ``requests`` only
  limits each read, so a server that sends a byte now and then could stretch it without end.
- Every wait for the network ends soon after the client was stopped: before the request is sent at once, and
  after it when the request has had :data:`STOP_PATIENCE` seconds more. Only a DNS look-up cannot be ended.
- Interim responses (1xx, but not 101) are skipped, up to a number. The connection is not used again.
- A connection with bytes left after a response is closed. Otherwise they would be read as the response
  to the next request.
- :data:`current_request` tells the caller what the socket knows: whether the request was sent, and whether
  a response began.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import socket
import ssl
import sys
import threading
import time
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final, NoReturn

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.wait import wait_for_read, wait_for_write

from tavus_provider import __version__

MAX_INTERIM_RESPONSES: Final = 32
"""Limit of 1xx responses before the final response to one request."""


STOP_PATIENCE: Final = 3.0
"""Seconds that a request which was sent has for its response after the client was stopped."""
STOP_CHECK_SECONDS: Final = 0.25
"""Interval at which a wait for the network checks whether the client was stopped."""


class UnexpectedRequestError(Exception):
    """The request about to be sent is not an expected one. Nothing was sent."""


class StoppedError(Exception):
    """The client was stopped before the request was sent. Nothing was sent."""


class RequestState:
    """
    What is known of one request while it is sent and its response is read.

    :param seconds: total time for the request
    :param expected: pairs of method and target that may be sent
    :param stop: is set when the client is stopped
    """

    def __init__(
        self, seconds: float, *expected: tuple[str, str], stop: threading.Event | None = None
    ) -> None:
        self.expected = expected
        self._stop = stop
        self._patient_until: float | None = None
        self.deadline = time.monotonic() + seconds
        self.sent: bool | None = None
        """``None`` until a connection is needed; then whether a byte of the request may have been sent."""
        self.received = False
        self.expired = False
        self.cut_off = False
        """Whether the request was ended because the client was stopped."""
        self.interim_responses = 0

    @property
    def is_stopped(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    def seconds_left(self) -> float:
        now = time.monotonic()
        left = self.deadline - now
        if self.is_stopped:
            if not self.sent:
                return 0.0
            if self._patient_until is None:
                self._patient_until = now + STOP_PATIENCE
            left = min(left, self._patient_until - now)
        return left

    def wait(self, sock: socket.socket, *, write: bool = False) -> None:
        """
        Wait until a socket can be read or written.

        :raises TimeoutError: if the time of the request is over, or it is cut off after a stop
        """
        wait_for = wait_for_write if write else wait_for_read
        while True:
            seconds = self.check_time()
            if wait_for(sock, min(seconds, STOP_CHECK_SECONDS)):
                return
            if seconds <= STOP_CHECK_SECONDS:
                self._end()

    def check_time(self) -> float:
        """
        Return the seconds that are left.

        :raises TimeoutError: if none are left
        """
        seconds = self.seconds_left()
        if seconds <= 0:
            self._end()
        return seconds

    def _end(self) -> NoReturn:
        self.cut_off = self.is_stopped
        self.expired = not self.cut_off
        raise TimeoutError("the client was stopped" if self.cut_off else "the request took too long")


class _CurrentRequest(threading.local):
    """
    The request of the current thread.

    It carries the deadline to the socket through two libraries that have no parameter for it.
    """

    _state: RequestState | None = None

    def begin(
        self, seconds: float, *expected: tuple[str, str], stop: threading.Event | None = None
    ) -> RequestState:
        self._state = RequestState(seconds, *expected, stop=stop)
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
        self._sock.settimeout(0)  # the wait is below, so that a stop ends it
        while True:
            self._state.check_time()
            try:
                count = self._sock.recv_into(buffer)
                break
            except (BlockingIOError, ssl.SSLWantReadError):
                write = False
            except ssl.SSLWantWriteError:
                write = True
            # Outside of the except block, so that a timeout is not the consequence of another error.
            self._state.wait(self._sock, write=write)
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
        # As urllib3 does, but a stop ends the wait, and the TLS handshake gets the rest of the time. urllib3
        # would give it the whole timeout again.
        try:
            sock = self._connect()
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out") from error
        except OSError as error:
            raise NewConnectionError(self, f"Failed to establish a new connection: {error}") from error
        sys.audit("http.client.connect", self, self.host, self.port)
        return sock

    def _connect(self) -> socket.socket:
        state = current_request.state()
        failure = OSError("the name has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(
            self._dns_host, self.port, type=socket.SOCK_STREAM
        ):
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.setblocking(False)
                code = sock.connect_ex(address)
                if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
                    state.wait(sock, write=True)
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, "cannot connect")
                sock.settimeout(max(0.001, state.seconds_left()))
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise failure

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        # The last check, on what is really sent, whatever the libraries above did to the request.
        if (method, url) not in current_request.state().expected:
            raise UnexpectedRequestError
        super().putrequest(method, url, *args, **kwargs)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        state = current_request.state()
        if state.is_stopped and not state.sent:
            raise StoppedError
        self.sock.settimeout(max(0.001, state.seconds_left()))
        state.sent = True
        super().send(data)


class _HTTPSConnection(_HTTPConnection, urllib3.connection.HTTPSConnection):
    """The same over TLS."""


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _TLSContext(ssl.SSLContext):
    """A context whose handshakes end when the time of the request is over or the client was stopped."""

    def wrap_socket(self, sock: socket.socket, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        state = current_request.state()
        wrapped = super().wrap_socket(sock, *args, **{**kwargs, "do_handshake_on_connect": False})
        try:
            wrapped.settimeout(0)
            while True:
                try:
                    wrapped.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    write = False
                except ssl.SSLWantWriteError:
                    write = True
                state.wait(wrapped, write=write)
            wrapped.settimeout(max(0.001, state.seconds_left()))
        except BaseException:
            wrapped.close()
            raise
        return wrapped


def _tls_context() -> ssl.SSLContext:
    """Return a context that ignores SSLKEYLOGFILE, unlike the default contexts of ssl and urllib3."""
    context = _TLSContext(ssl.PROTOCOL_TLS_CLIENT)
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
