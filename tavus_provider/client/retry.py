"""
The retry loop for all requests: backoff, ``Retry-After``, a limit of waiting, and a retry budget.

What may be sent again is decided by the request (:class:`Retryable`), because only a delete knows whether
an earlier attempt may have been applied. How often, when and after which wait is decided here.
"""

from __future__ import annotations

import math
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Protocol, TypeVar

from tavus_provider.client.rate_limiter import RateLimiter
from tavus_provider.client.responses import is_rate_limited
from tavus_provider.client.transport import RequestCancelledError, Response
from tavus_provider.exceptions import TavusRetryableError

MAX_ATTEMPTS: Final = 3
MAX_WAIT_SECONDS: Final = 120.0
"""Limit of all waits of one request together. A longer ``Retry-After`` ends the request at once."""
MIN_RETRY_BUDGET: Final = 10
"""Retries that a client may always make. Above that it may make one retry for ten requests."""
_SECONDS_PER_DAY = 86_400
_STOPPED = "the client was stopped"
_DATE = re.compile(
    r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT"  # IMF-fixdate
    r"|[A-Z][a-z]{5,8}, [0-9]{2}-[A-Z][a-z]{2}-[0-9]{2} [0-9:]{8} GMT"  # RFC 850
    r"|[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} [0-9]{4}"  # asctime
)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Retry:
    """
    Returned by an attempt that may be repeated.

    :param response: the response that was not usable, if there was one
    :param uses_budget: whether the repetition uses the retry budget; false at most once per request
    """

    response: Response | None = None
    uses_budget: bool = True


class Retryable(Protocol[T_co]):
    """A request that may be sent several times."""

    def attempt(self, number: int) -> T_co | Retry:
        """
        Send the request once.

        :param number: 1 for the first attempt
        :returns: the result, or :class:`Retry`
        :raises TavusError: if another attempt cannot help
        """

    def give_up(self, attempts: int, error: TavusRetryableError | None) -> T_co:
        """
        Return or raise the final result after the last attempt.

        :param attempts: how many attempts were made
        :param error: why no further attempt is made; ``None`` if ``MAX_ATTEMPTS`` were made
        """


class RetryPolicy:
    """
    Send a request until it succeeds, up to ``MAX_ATTEMPTS`` times.

    One policy belongs to one client: the retry budget is that of all its requests together. If Tavus is
    down, a large batch then ends after a few retries instead of multiplying the load.

    :param rate_limiter: waits here; a 429 response blocks it for all threads of the account
    :param stop: ends all waits when it is set; no attempt begins afterwards
    """

    def __init__(self, rate_limiter: RateLimiter, *, stop: threading.Event) -> None:
        self._rate_limiter = rate_limiter
        self._stop = stop
        self._lock = threading.Lock()
        self._requests = 0
        self._retries = 0

    def run(self, request: Retryable[T]) -> T:
        """
        Send a request, and again while it asks for it and the limits allow it.

        :raises TavusError: what the request raises
        """
        self.count_request()
        waited = 0.0
        number = 0
        error: TavusRetryableError | None = None
        while error is None and number < MAX_ATTEMPTS:
            try:
                result = request.attempt(number + 1)
            except RequestCancelledError as cancelled:
                error = RequestCancelledError(cancelled.reason)
                break
            number += 1
            if not isinstance(result, Retry):
                return result
            if number < MAX_ATTEMPTS:
                try:
                    waited += self.wait(number, waited, result.response, uses_budget=result.uses_budget)
                except TavusRetryableError as refused:
                    error = refused
        return request.give_up(number, error)

    def count_request(self) -> None:
        """Count one request, which adds to the retry budget."""
        with self._lock:
            self._requests += 1

    def wait(
        self,
        attempts: int,
        waited: float = 0.0,
        response: Response | None = None,
        *,
        uses_budget: bool = True,
    ) -> float:
        """
        Wait before the next attempt of a request.

        The wait is random between 0 and a bound that doubles with each attempt, up to 8 seconds. It is
        added to a ``Retry-After``. A 429 response blocks the rate limiter for the same time, and does not
        use the retry budget.

        :param attempts: number of attempts made so far
        :param waited: seconds that this request has waited so far
        :param response: the response of the last attempt, if there was one
        :param uses_budget: whether the next attempt uses the retry budget
        :returns: the seconds of this wait
        :raises TavusRetryableError: if the wait exceeds ``MAX_WAIT_SECONDS``, the retry budget is used up,
            or the client was stopped
        """
        status = response.status if response else None
        asked = parse_retry_after(response.headers.get("retry-after")) if response else None
        seconds = random.uniform(0, min(8.0, 0.5 * 2**attempts))  # noqa: S311  # jitter, not a secret
        if asked is not None:
            seconds += asked
        elif is_rate_limited(status):
            seconds += 0.5
        if seconds + waited > MAX_WAIT_SECONDS:
            cause = "rate limited: " if is_rate_limited(status) else ""
            raise TavusRetryableError(cause + _wait_too_long(asked, seconds + waited), status=status)
        if is_rate_limited(status):
            self._rate_limiter.block_for(seconds)
        elif uses_budget and not self._take_retry():
            raise TavusRetryableError(
                "too many requests of this task needed a retry: Tavus seems to be down", status=status
            )
        if self._rate_limiter.sleep(seconds, self._stop):
            raise RequestCancelledError(_STOPPED, status=status)
        return seconds

    def _take_retry(self) -> bool:
        with self._lock:
            if self._retries >= max(MIN_RETRY_BUDGET, self._requests // 10):
                return False
            self._retries += 1
            return True


def is_read_retryable(status: int) -> bool:
    """Whether a read that got this status may get another response soon. It does not apply to deletes."""
    return status == 408 or is_rate_limited(status) or 500 <= status <= 599


def parse_retry_after(
    header: str | None, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> float | None:
    """
    Parse a ``Retry-After`` header: seconds, or a date in one of the three formats of RFC 9110.

    :returns: whole seconds to wait, fractions rounded up; 0 for a past date, infinity for more than a day;
        ``None`` for any other text
    """
    if header is None:
        return None
    text = header.strip()
    if match := re.fullmatch(r"([0-9]+)(?:\.([0-9]{1,9}))?", text):
        rounded_up = bool(match[2] and match[2].strip("0"))
        return float(int(match[1]) + rounded_up) if len(match[1]) < 6 else math.inf
    if _DATE.fullmatch(text):
        try:
            then = parsedate_to_datetime(text)
            # asctime has no zone; all three formats mean UTC.
            seconds = (then.replace(tzinfo=UTC) - now()).total_seconds()
        except (ValueError, OverflowError):
            return None
        return max(0.0, seconds) if seconds < _SECONDS_PER_DAY else math.inf
    return None


def _wait_too_long(asked: float | None, total: float) -> str:
    limit = f"the limit of {MAX_WAIT_SECONDS:.0f} s"
    if asked is None:
        return f"the next attempt exceeds {limit} for all waits of one request"
    if asked > MAX_WAIT_SECONDS:
        shown = "more than a day" if math.isinf(asked) else f"{asked:.0f} s"
        return f"Retry-After of {shown} exceeds {limit}"
    return f"Retry-After of {asked:.0f} s makes {math.ceil(total)} s of waiting, which exceeds {limit}"
