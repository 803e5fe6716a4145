"""
One HTTP request to Tavus, and its response.

Each request is compared with the expected one before it is sent. Each response has a limit of bytes and
of seconds. An error says whether the request was certainly not sent. Retries are in
:mod:`tavus_provider.client.retry`.
"""

from __future__ import annotations

import base64
import http.client
import os
import re
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import quote, urlencode

import requests
import urllib3

from tavus_provider.client.body import innermost_type, read_body
from tavus_provider.client.config import ClientConfig
from tavus_provider.client.connection import (
    RequestState,
    Session,
    StoppedError,
    UnexpectedRequestError,
    current_request,
)
from tavus_provider.client.kinds import KINDS
from tavus_provider.client.rate_limiter import RateLimiter, shared_rate_limiter
from tavus_provider.exceptions import (
    TavusOutcomeUnknownError,
    TavusRequestRejectedError,
    TavusRetryableError,
    TavusValidationError,
)
from tavus_provider.json_parser import parse_json
from tavus_provider.outcomes import Outcome
from tavus_provider.sanitize import escape_line

MAX_BODY_BYTES: Final = {"GET": 8 * 2**20, "DELETE": 64 * 2**10, "POST": 64 * 2**10}
"""Limit of bytes of a decompressed response body, by method."""

_UNEXPECTED = "the prepared request is not the {} that was asked for; it was not sent"
_PATH = re.compile(r"/v2/[a-z]+(/[A-Za-z0-9][A-Za-z0-9_-]{1,63})?")
_DELETE = re.compile(
    rf"({'|'.join(kind.path for kind in KINDS.values())})/[A-Za-z0-9][A-Za-z0-9_-]{{1,63}}"
    r"(\?hard=true)?"
)
_POST = re.compile(r"/v2/conversations/[A-Za-z0-9][A-Za-z0-9_-]{1,63}/end")
_PROXY = re.compile(r"https?://([^\s/?#@]+@)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?")


class RequestNotSentError(TavusRetryableError):
    """No byte of the request was sent."""


class RequestCancelledError(TavusRetryableError):
    """The request was not sent, because the client was stopped, or for the reason of its caller."""

    outcome = Outcome.NOT_ATTEMPTED
    reason = "the client was stopped"

    @classmethod
    def because(cls, reason: str) -> Self:
        """Return the error with another reason."""
        error = cls(reason)
        error.reason = reason
        return error


class NoResponseError(TavusOutcomeUnknownError):
    """
    The request was sent, and no final response was received.

    ``response_began`` is true if part of a response had arrived when the time was up. The server is then
    reachable and slow: another attempt would take as long.
    """

    response_began = False


@dataclass(frozen=True, slots=True)
class Response:
    """
    A final response. Its head arrived in full, its body may not have.

    :param headers: names in lower case; values without the key
    :param body: not part of the ``repr``, because a server may repeat the key in it
    :param body_error: why the body cannot be used; ``None`` if it arrived in full
    :param truncated: whether the connection was cut within the body, which a retry may fix
    :param too_large: whether the body has more bytes than allowed
    :param attempts: number of attempts made for this response
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    body_error: str | None = None
    truncated: bool = False
    too_large: bool = False
    attempts: int = 1

    @property
    def request_id(self) -> str | None:
        """The id that the server gave the request, safe to print."""
        given = self.headers.get("x-request-id")
        return escape_line(given, 64) if given else None

    @property
    def is_json(self) -> bool:
        """Whether the content type is JSON."""
        return "json" in self.headers.get("content-type", "").lower()

    def json(self) -> Any:
        """
        Return the body as JSON; see :func:`.parse_json` for values that JSON does not have.

        :raises ValueError: if the body is not usable JSON; the message says why
        """
        if self.body_error:
            raise ValueError(self.body_error)
        try:
            return parse_json(self.body)
        except (ValueError, RecursionError):
            content_type = self.headers.get("content-type") or "no content type"
        raise ValueError(f"the body is not JSON ({escape_line(content_type, 60)}, {len(self.body)} bytes)")

    def error_text(self) -> str:
        """Return the text of ``error`` or ``message`` in the body, or an empty string."""
        try:
            body = self.json()
        except ValueError:
            return ""
        if not isinstance(body, dict):
            return ""
        text = body.get("error") or body.get("message")
        return text if isinstance(text, str) else ""


class Transport:
    """
    Send single requests to one account of Tavus.

    Safe to share between threads. Close it when done; it can be used again afterwards.

    :param proxy: URL of a proxy that the deployment configured
    :param ca_bundle: path of a file of trusted certificates; ``None`` for those of ``certifi``
    :param rate_limiter: ``None`` for the one that all clients of this account share
    :param stop: when it is set, no further request is sent
    :raises TavusValidationError: if ``proxy`` or ``ca_bundle`` cannot be used
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        proxy: str | None = None,
        ca_bundle: str | None = None,
        rate_limiter: RateLimiter | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        if ca_bundle and not Path(ca_bundle).exists():
            raise TavusValidationError(f"[tavus] ca_bundle {ascii(ca_bundle)[:200]} does not exist")
        if proxy and not _PROXY.fullmatch(proxy):  # not repeated: it may contain a password
            raise TavusValidationError(
                "[tavus] proxy is not a valid URL: expected for example http://proxy.example:3128"
            )
        self.origin = config.origin
        self.options = config.options
        self.rate_limiter = rate_limiter or shared_rate_limiter(config)
        self.stop = stop or threading.Event()
        self.clock_skew: float | None = None
        """Seconds by which Tavus's clock was ahead at the last response with a ``Date`` and no ``Age``."""
        self.clock_evidence: str | None = None
        """What ``clock_skew`` was computed from, for messages."""
        self._key = config.key
        self._key_pattern = _key_pattern(config.key)
        self._proxies = {"http": proxy, "https": proxy} if proxy else {}
        self._verify = ca_bundle or True
        self._session = self._open_session()

    def __repr__(self) -> str:
        return f"Transport({self.origin!r})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a Transport holds the API key and cannot be pickled")

    def _open_session(self) -> Session:
        self._process = os.getpid()
        session = Session(self.options.concurrency)
        session.verify = self._verify
        session.proxies = dict(self._proxies)
        return session

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def send(
        self,
        method: Literal["GET", "DELETE", "POST"],
        path: str,
        query: Mapping[str, str | int] | None = None,
        *,
        timeout: float | None = None,
        before_send: Callable[[], bool] | None = None,
    ) -> Response:
        """
        Send one request once.

        :param path: such as ``/v2/replicas/rf4e9d9790f0``
        :param timeout: total time in seconds, from connecting to the last byte of the body; by default
            that of the options
        :param before_send: called when the rate limit allows the request. If it returns ``False``, the rate
            limit is asked again. May raise :class:`RequestCancelledError`
        :returns: the final response, whatever its status
        :raises RequestNotSentError: if certainly nothing was sent
        :raises RequestCancelledError: if the client was stopped before the request was sent
        :raises TavusRequestRejectedError: if certainly nothing was sent, and a retry cannot help
            (certificate)
        :raises NoResponseError: if the request was sent and no final response came
        """
        if self._process != os.getpid():
            # After a fork: two processes on one connection would read each other's responses.
            self._session = self._open_session()
        target = path + ("?" + urlencode(query) if query else "")
        request = self._session.prepare_request(
            requests.Request(method, self.origin + target, headers={"x-api-key": self._key})
        )
        # The ids were validated before. This check ensures that only the expected request is sent.
        if (
            not _is_expected(method, path, target)
            or request.method != method
            or request.url != self.origin + target
            or request.body
        ):
            raise TavusValidationError(_UNEXPECTED.format(method))

        what = f"{method} {target}"
        allowed = False
        while not allowed:
            if not self.rate_limiter.acquire(self.options.requests_per_second, stop=self.stop):
                raise RequestCancelledError(f"{what} was not sent: the client was stopped")
            allowed = before_send is None or before_send()
        seconds = timeout or self.options.timeout
        # The request line that a proxy gets contains the full URL.
        state = current_request.begin(
            seconds, (method, target), (method, self.origin + target), stop=self.stop
        )
        failure = ""
        not_sent = bad_certificate = unexpected = stopped = False
        try:
            http_response = self._session.send(request, stream=True, allow_redirects=False, timeout=seconds)
            response = _read_response(http_response, MAX_BODY_BYTES[method], self._remove_key)
            self._read_clock(response.headers)
            return response
        except (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
            failure = innermost_type(error)
            not_sent = state.sent is False or (
                state.sent is None and isinstance(error, requests.ConnectTimeout)
            )
            bad_certificate = not_sent and isinstance(error, requests.exceptions.SSLError)
        except UnexpectedRequestError:
            unexpected = True
        except StoppedError:
            stopped = True
        except (OSError, ValueError) as error:
            failure = innermost_type(error)
            not_sent = state.sent is False
        finally:
            current_request.end()
        # Raised outside the except block: the library's error contains the request, and so the key.
        if unexpected:
            raise TavusValidationError(_UNEXPECTED.format(method))
        if stopped or (not_sent and state.cut_off):
            raise RequestCancelledError(f"{what} was not sent: the client was stopped")
        if bad_certificate:
            problem = f"the certificate of {self.origin} could not be verified ({failure})"
            raise TavusRequestRejectedError(f"{what} was not sent: {problem}", attempts=1)
        if not_sent:
            way = " through the proxy in [tavus] proxy" if self._proxies else ""
            if failure == socket.gaierror.__name__:
                failure += ": the host name cannot be resolved" + (
                    "" if self._proxies else "; if only a proxy can reach it, set [tavus] proxy"
                )
            raise RequestNotSentError(
                f"{what} was not sent: no connection to {self.origin}{way} ({failure})", attempts=1
            )
        raise _no_response(what, "the client was stopped" if state.cut_off else failure, state)

    def _read_clock(self, headers: Mapping[str, str]) -> None:
        date, age = headers.get("date"), headers.get("age", "").strip()
        # A cache sends the Date of the day it stored the response.
        if re.fullmatch(r"[0-9]*[1-9][0-9]*", age):
            return
        now = datetime.now(UTC)
        try:
            skew = (parsedate_to_datetime(date or "") - now).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return
        self.clock_skew = skew
        self.clock_evidence = (
            f"a response had {f'Age: {escape_line(age, 20)} and ' if age else ''}Date: "
            f"{escape_line(date or '', 60)} when this worker's clock showed {now:%a, %d %b %Y %H:%M:%S} GMT"
        )

    def redact(self, text: str) -> str:
        """Return text of the server on one line, without the key in any of its usual encodings."""
        return escape_line(self._remove_key(text))

    def _remove_key(self, text: str) -> str:
        return self._key_pattern.sub("***", text)


def _is_expected(method: str, path: str, target: str) -> bool:
    match method:
        case "GET":
            return _PATH.fullmatch(path) is not None
        case "DELETE":
            return _DELETE.fullmatch(target) is not None
        case "POST":
            return _POST.fullmatch(target) is not None
        case _:
            return False


def _no_response(what: str, failure: str, state: RequestState) -> NoResponseError:
    error = NoResponseError(f"{what} was sent and got no final response ({failure})", attempts=1)
    error.response_began = state.received and state.expired
    return error


def _key_pattern(key: str) -> re.Pattern[str]:
    """Match the key in all its usual encodings, the longest first."""
    raw = key.encode()
    encodings = {
        key,
        quote(key, safe=""),
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
        repr(key)[1:-1],
    }
    return re.compile("|".join(map(re.escape, sorted(encodings, key=len, reverse=True))))


def _read_response(response: requests.Response, limit: int, clean: Callable[[str], str]) -> Response:
    """Read the body up to ``limit`` bytes. Keep the connection only after a complete, final response."""
    raw = response.raw
    headers = {name.lower(): clean(value) for name, value in response.headers.items()}
    if not 200 <= response.status_code <= 599:
        raw.close()
        raw.release_conn()  # otherwise the pool loses one connection for the life of the session
        raise http.client.BadStatusLine("not a final status")
    body = read_body(raw, limit, headers.get("content-encoding", ""))
    if body.error:
        raw.close()
    raw.release_conn()
    return Response(response.status_code, headers, *body)
