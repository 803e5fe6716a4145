"""
One exchange with Tavus over HTTP: sent once, answered or in doubt, and it knows which.

Every request is compared with what was meant before it leaves, every answer has a limit of bytes and
of seconds, and retries live here and nowhere else. Knows no Airflow.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlencode

import requests
import urllib3

from tavus_provider.client.config import Account
from tavus_provider.client.connection import NotMeant, Session, exchanges
from tavus_provider.exceptions import (
    TavusOutcomeUnknownError,
    TavusRequestRejectedError,
    TavusRetryableError,
    TavusValidationError,
)
from tavus_provider.sanitize import escape_line

MAX_SENDS = 3
PATIENCE = 120.0
"""Seconds that one call may spend waiting between its sends; a longer ``Retry-After`` ends it at once."""
MAX_BODY = {"GET": 8 * 2**20, "DELETE": 64 * 2**10}
"""Bytes that are read of an answer, by method."""

A = TypeVar("A")
B = TypeVar("B")

_NOT_MEANT = "the request that was put together is not the {} that was meant; not sent"
_PATH = re.compile(r"/v2/[a-z]+(/[A-Za-z0-9][A-Za-z0-9_-]{1,63})?")
_PROXY = re.compile(r"https?://([^\s/?#@]+@)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?")
_DELETE = re.compile(r"/v2/replicas/[A-Za-z0-9][A-Za-z0-9_-]{1,63}(\?hard=true)?")


@dataclass(frozen=True, slots=True)
class Answer:
    """
    A final answer: its head arrived whole, its body may not have.

    :param body: not shown in its ``repr``: a server may repeat the key in it
    :param flaw: why the body cannot be used; ``None`` if it arrived whole
    :param attempts: how many requests had been sent for it
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    flaw: str | None = None
    attempts: int = 1

    @property
    def request_id(self) -> str | None:
        """The id which the server gave this answer, fit for a message."""
        given = self.headers.get("x-request-id")
        return escape_line(given, 64) if given else None

    @property
    def is_json(self) -> bool:
        """Whether the answer says that its body is JSON."""
        return "json" in self.headers.get("content-type", "").lower()

    def json(self) -> Any:
        """
        Return the body as JSON.

        :raises ValueError: with a sentence that says why it is not usable JSON
        """
        if self.flaw:
            raise ValueError(self.flaw)
        try:
            return json.loads(self.body.decode(), object_pairs_hook=_no_twins, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            what = self.headers.get("content-type") or "no content type"
        raise ValueError(f"the body is not JSON ({escape_line(what, 60)}, {len(self.body)} bytes)")

    def complaint(self) -> str:
        """What the server says went wrong, from ``error`` or ``message``; empty if it does not say."""
        try:
            body = self.json()
        except ValueError:
            return ""
        if not isinstance(body, dict):
            return ""
        said = body.get("error") or body.get("message")
        return said if isinstance(said, str) else ""


class RequestNotSentError(TavusRetryableError):
    """No byte of the request left this machine."""


class NoResponseError(TavusOutcomeUnknownError):
    """
    The request left, and no final answer came back.

    ``begun`` tells that some of an answer had arrived when the time was up: asking again would drip again.
    """

    begun = False


class Gate:
    """
    The one door through which all requests of this process to one account pass, one after the other.

    When one is told to wait, all wait. It spaces them: as ``requests_per_second`` asks, and after a 429
    for a while at the pace at which Tavus let them through before; all at once would only be refused
    again. It reads a monotonic clock, so that setting the wall clock changes no wait.
    """

    def __init__(
        self, *, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.sleep = sleep
        self.clock = clock
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._next = 0.0
        self._closed_until = 0.0
        self._passed: deque[float] = deque()
        self._refused: deque[float] = deque()
        self._seen_gap = 0.0
        self._believed_until = 0.0

    def close_for(self, seconds: float) -> None:
        """Let nobody through for so many seconds from now: Tavus has answered 429."""
        with self._lock:
            now = self.clock()
            self._closed_until = max(self._closed_until, now + seconds)
            self._refused.append(now)
            let_through = _count_last_second(self._passed, now) - _count_last_second(self._refused, now)
            if let_through > 1:  # from one alone no pace can be told
                self._seen_gap = _ROOM / let_through
                self._believed_until = self._closed_until + _BELIEVED

    def wait(self, requests_per_second: float | None = None) -> None:
        """Return when the caller may send its request."""
        with self._turn:
            while (left := max(self._closed_until, self._next) - self.clock()) > 0:
                self.sleep(left)
            with self._lock:
                now = self.clock()
                _count_last_second(self._passed, now)
                self._passed.append(now)
                asked = _ROOM / requests_per_second if requests_per_second else 0.0
                self._next = now + max(asked, self._seen_gap if now < self._believed_until else 0.0)


_ROOM = 1.05
"""The server counts what arrives, and what leaves evenly arrives less evenly: a twentieth of room."""
_BELIEVED = 60.0
"""Seconds for which a pace seen at a 429 is kept to."""


def _count_last_second(moments: deque[float], now: float) -> int:
    """How many of these were in the last second; the older ones are forgotten."""
    while moments and moments[0] <= now - 1:
        moments.popleft()
    return len(moments)


_gates: dict[tuple[str, str], Gate] = {}
_gates_lock = threading.Lock()


def _gate(account: Account) -> Gate:
    with _gates_lock:
        return _gates.setdefault((account.origin, account.key), Gate())


class Transport:
    """
    Sends requests to one account.

    Safe to share between threads; close it when done. ``send`` is one exchange; ``read`` is a GET
    with its retries; a caller that deletes uses ``send`` and ``pause`` for its own, because only it
    can look up what became of a request in doubt.

    :param proxy: URL of a proxy which the deployment has set, or ``None``
    :param ca_bundle: path of a file with the certificates to trust, or ``None`` for the usual ones
    """

    def __init__(
        self,
        account: Account,
        *,
        proxy: str | None = None,
        ca_bundle: str | None = None,
        gate: Gate | None = None,
    ) -> None:
        if ca_bundle and not Path(ca_bundle).exists():
            raise TavusValidationError(f"[tavus] ca_bundle {ascii(ca_bundle)[:200]} does not exist")
        if proxy and not _PROXY.fullmatch(proxy):  # not repeated: it may hold a password
            raise TavusValidationError(
                "[tavus] proxy cannot be read: expected a URL such as http://proxy.example:3128"
            )
        self.origin = account.origin
        self.extras = account.extras
        self.gate = gate or _gate(account)
        self._key = account.key
        self._key_forms = _forms(account.key)
        self.clock_skew: float | None = None
        self._calls = 0
        self._retries = 0
        self._proxies = {"http": proxy, "https": proxy} if proxy else {}
        self._verify = ca_bundle or True
        self._session = self._open()

    def __repr__(self) -> str:
        return f"Transport({self.origin!r})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a Transport holds the API key and is not pickled")

    def _open(self) -> Session:
        self._process = os.getpid()
        session = Session(self.extras.concurrency)
        session.verify = self._verify
        session.proxies = dict(self._proxies)
        return session

    def close(self) -> None:
        """End the threads of :meth:`parallel_tasks` and close all connections."""
        if threads := self.__dict__.pop("_threads", None):
            threads.shutdown()
        self._session.close()

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.extras.concurrency, thread_name_prefix="tavus")

    def parallel_tasks(self, act: Callable[[A], B], items: Iterable[A]) -> Generator[tuple[A, B], None, None]:
        """
        Do ``act`` on every item, up to ``concurrency`` at once; yield item and result as they come.

        Items are taken when their turn is near. Whatever ends this early (an error of ``act``, a signal,
        a caller that closes it) begins no further item and waits for those under way.

        :raises Exception: what ``act`` raised, for the first item for which it did
        """
        waiting = iter(items)
        taken: dict[Future[B], A] = {}
        done: SimpleQueue[Future[B]] = SimpleQueue()
        try:
            while True:
                # As many again stand in line, so that no thread waits for this one to hand it the next.
                for item in islice(waiting, 2 * self.extras.concurrency - len(taken)):
                    future = self._threads.submit(act, item)
                    taken[future] = item
                    future.add_done_callback(done.put)
                if not taken:
                    return
                future = done.get()
                yield taken.pop(future), future.result()
        finally:
            for future in taken:
                future.cancel()
            wait(taken)

    def send(
        self,
        method: Literal["GET", "DELETE"],
        path: str,
        query: Mapping[str, str | int] | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer:
        """
        Send one request once.

        :param path: such as ``/v2/replicas/rf4e9d9790f0``
        :param timeout: seconds for the whole exchange, from connecting to the last byte of the body
        :returns: the final answer, whatever its status
        :raises RequestNotSentError: certain that nothing left
        :raises TavusRequestRejectedError: certain that nothing left and that a retry cannot help (certificate)
        :raises NoResponseError: the request left and no final answer came
        """
        if self._process != os.getpid():
            self._session = self._open()  # after a fork: two processes on one connection would mix up answers
            self.__dict__.pop("_threads", None)  # of the other process, here they do not run
        target = path + ("?" + urlencode(query) if query else "")
        request = self._session.prepare_request(
            requests.Request(method, self.origin + target, headers={"x-api-key": self._key})
        )
        # The second fence behind the check of the id: what leaves is what was meant, or nothing leaves.
        meant = _DELETE.fullmatch(target) if method == "DELETE" else _PATH.fullmatch(path)
        meant = meant if method in MAX_BODY else None
        if not meant or request.method != method or request.url != self.origin + target or request.body:
            raise TavusValidationError(_NOT_MEANT.format(method))

        self.gate.wait(self.extras.requests_per_second)
        seconds = timeout or self.extras.timeout
        # To a proxy the whole URL may be said.
        call = exchanges.begin(seconds, (method, target), (method, self.origin + target))
        what = f"{method} {target}"
        fault = ""
        certain = bad_certificate = changed = False
        try:
            response = self._session.send(request, stream=True, allow_redirects=False, timeout=seconds)
            answer = _read(response, MAX_BODY[method], self._without_key)
            if (skew := _skew(answer.headers.get("date"))) is not None:
                self.clock_skew = skew
            return answer
        except (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
            fault = _name(error)
            certain = call.sent is False or (call.sent is None and isinstance(error, requests.ConnectTimeout))
            bad_certificate = certain and isinstance(error, requests.exceptions.SSLError)
        except NotMeant:
            changed = True
        except (OSError, ValueError) as error:
            fault = _name(error)
            certain = call.sent is False
        finally:
            exchanges.end()
        # Raised here, outside the except block: the library's error holds the request and so the key.
        if changed:
            raise TavusValidationError(_NOT_MEANT.format(method))
        if bad_certificate:
            raise TavusRequestRejectedError(
                f"{what} was not sent: {self.origin} did not prove its identity ({fault})", attempts=1
            )
        if certain:
            raise RequestNotSentError(
                f"{what} was not sent: no connection to {self.origin} ({fault})", attempts=1
            )
        unanswered = NoResponseError(f"{what} was sent and got no final answer ({fault})", attempts=1)
        unanswered.begun = call.received and call.expired
        raise unanswered

    def read(
        self, path: str, query: Mapping[str, str | int] | None = None, *, timeout: float | None = None
    ) -> Answer:
        """
        GET with up to three sends while the fault may heal: no answer, a torn body, 408, 429, 5xx.

        :returns: the last answer, whatever its status
        :raises TavusRetryableError: no usable answer in three sends, or told to wait longer than patience allows
        """
        self.count_call()
        sends, waited = 0, 0.0
        while True:
            sends += 1
            answer: Answer | None = None
            fault: TavusRetryableError | TavusOutcomeUnknownError | None = None
            given_up = False
            try:
                answer = self.send("GET", path, query, timeout=timeout)
            except RequestNotSentError as error:
                fault = error
            except NoResponseError as error:
                fault = error
                given_up = error.begun
            if answer:
                answer = replace(answer, attempts=sends)
            if answer and not answer.flaw and not may_heal(answer.status):
                return answer
            if given_up or sends >= MAX_SENDS or (answer and answer.flaw and not _torn(answer)):
                if answer:
                    return answer
                tries = f"{sends} {'try' if sends == 1 else 'tries'}"
                raise TavusRetryableError(f"{fault}; {tries}", attempts=sends) from None
            try:
                waited += self.pause(sends, waited, answer)
            except TavusRetryableError as error:
                if answer and answer.status != 429:
                    return answer
                raise TavusRetryableError(
                    f"GET {path}: {error}", status=error.status, attempts=sends
                ) from None

    def count_call(self) -> None:
        """Count one call: a batch may spend one retry on ten calls, and ten in any case."""
        self._calls += 1

    def pause(self, sends: int, waited: float = 0.0, answer: Answer | None = None) -> float:
        """
        Wait before the next send of a call, or give the call up.

        Full jitter; a ``Retry-After`` is honoured, and a 429 closes the gate for everybody.

        :param sends: how often this call was sent
        :param waited: seconds that this call has waited so far
        :returns: the seconds waited now
        :raises TavusRetryableError: the wait asked for is beyond what is left of ``PATIENCE``, or the batch
            has spent its retries
        """
        status = answer.status if answer else None
        asked = retry_after(answer.headers.get("retry-after")) if answer else None
        wait = random.uniform(0, min(8.0, 0.5 * 2**sends))  # noqa: S311  # jitter, not a secret
        if asked is not None:
            wait += asked
        elif status == 429:
            wait += 0.5
        if wait + waited > PATIENCE:
            why = "rate limited: " if status == 429 else ""
            told = f"told to wait {_seconds(asked)}; " if asked is not None else ""
            raise TavusRetryableError(f"{why}{told}one call waits {PATIENCE:.0f} s at most", status=status)
        if status != 429 and self._retries >= max(10, self._calls // 10):
            raise TavusRetryableError(
                "too many calls of this task needed a retry: Tavus seems to be down", status=status
            )
        self._retries += status != 429
        if status == 429:
            self.gate.close_for(wait)
        self.gate.sleep(wait)
        return wait

    def redact(self, text: str) -> str:
        """Return text of the server on one line, without the key in any of the forms it is met in."""
        return escape_line(self._without_key(text))

    def _without_key(self, text: str) -> str:
        return self._key_forms.sub("***", text)


def _forms(key: str) -> re.Pattern[str]:
    """All forms in which the key is met in text, the longest first."""
    raw = key.encode()
    forms = {
        key,
        quote(key, safe=""),
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
        repr(key)[1:-1],
    }
    return re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))))


def may_heal(status: int) -> bool:
    """Whether the same GET may get another answer soon."""
    return status in (408, 429) or 500 <= status <= 599


def retry_after(
    header: str | None, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> float | None:
    """
    Read a ``Retry-After`` header: seconds or an HTTP date; ``None`` for anything else.

    :returns: seconds to wait, 0 for a date that has passed, infinity for more than a day
    """
    if header is None:
        return None
    text = header.strip()
    if re.fullmatch(r"[0-9]+", text):
        return float(text) if len(text) < 6 else float("inf")
    if re.fullmatch(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT", text):
        try:
            left = (parsedate_to_datetime(text) - now()).total_seconds()
        except (ValueError, OverflowError):
            return None
        return max(0.0, left) if left < 86_400 else float("inf")
    return None


def _skew(header: str | None) -> float | None:
    """Seconds by which the clock of a ``Date`` header is ahead of ours."""
    try:
        return (parsedate_to_datetime(header or "") - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds(value: float | None) -> str:
    return "more than a day" if value == float("inf") else f"{value:.0f} s"


def _torn(answer: Answer) -> bool:
    return (answer.flaw or "").startswith("the body was cut")


def _name(error: BaseException) -> str:
    """The kind of the innermost error that says something: never its text, which may hold anything."""
    names = [type(error).__name__]
    inner: Any = error
    while (inner := getattr(inner, "reason", None) or inner.__cause__ or inner.__context__) is not None:
        if not isinstance(inner, BaseException) or len(names) > 4:
            break
        names.append(type(inner).__name__)
    return names[-1]


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _read(response: requests.Response, cap: int, clean: Callable[[str], str]) -> Answer:
    """Read the body up to the cap; keep the connection only after a clean, complete, final answer."""
    raw = response.raw
    headers = {name.lower(): clean(value) for name, value in response.headers.items()}
    body, flaw = b"", None
    if not 200 <= response.status_code <= 599:
        raw.close()
        raw.release_conn()  # without this the pool would lend out one connection less, for ever
        raise http.client.BadStatusLine("not a final status")
    encoding = headers.get("content-encoding", "identity").strip().lower()
    try:
        chunks = []
        size = 0
        while size <= cap and (chunk := raw.read(min(65_536, cap + 1 - size), decode_content=False)):
            chunks.append(chunk)
            size += len(chunk)
        body = b"".join(chunks)
        if size > cap:
            flaw = f"the body is larger than {cap // 1024} KiB"
        elif encoding not in ("", "identity"):
            flaw = f"the body is compressed ({escape_line(encoding, 20)}) although that was not asked for"
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
        slow = exchanges.call().expired
        flaw = "the body did not end in time" if slow else f"the body was cut ({_name(error)})"
        body = b"".join(chunks)
    if flaw:
        raw.close()
    raw.release_conn()
    return Answer(response.status_code, headers, body, flaw)
