"""Rate limiter shared by all threads and clients of one account."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from tavus_provider.client.config import ClientConfig

SPACING: Final = 1.05
"""Requests are spaced 5 % wider than the rate asks for: they arrive less evenly than they are sent."""
OBSERVED_RATE_SECONDS: Final = 60.0
"""Time for which a rate observed at a 429 response is kept, in seconds."""
STOP_CHECK_SECONDS: Final = 0.5
"""Interval at which a thread that waits checks whether it was stopped."""


def wait_for_stop(seconds: float, stop: threading.Event) -> bool:
    """Wait ``seconds``, or until ``stop`` is set. Return whether it is set."""
    # Not stop.wait(): a signal handler that sets the event in this thread could wait forever for the lock
    # that the interrupted wait() holds.
    end = time.monotonic() + seconds
    while not stop.is_set() and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, STOP_CHECK_SECONDS))
    return stop.is_set()


class RateLimiter:
    """
    Space the requests of one account, one after the other.

    A 429 response blocks all threads. Requests are spaced as ``requests_per_second`` asks. After a 429
    they are also spaced by the rate at which Tavus accepted requests before it, because a burst would
    be rejected again. The clock is monotonic, so that setting the wall clock changes no wait.

    :param sleep: how to wait: called with seconds and the stop event, returns whether to stop
    :param clock: monotonic time in seconds
    """

    def __init__(
        self,
        *,
        sleep: Callable[[float, threading.Event], bool] = wait_for_stop,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sleep = sleep
        self.clock = clock
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._next_at = 0.0
        self._blocked_until = 0.0
        self._sent: deque[float] = deque()
        self._rejected: deque[float] = deque()
        self._observed_gap = 0.0
        self._observed_until = 0.0

    def block_for(self, seconds: float) -> None:
        """Let no request pass for ``seconds`` from now, after a 429 response."""
        with self._lock:
            now = self.clock()
            self._blocked_until = max(self._blocked_until, now + seconds)
            self._rejected.append(now)
            accepted = _count_last_second(self._sent, now) - _count_last_second(self._rejected, now)
            if accepted > 1:  # a single request shows no rate
                self._observed_gap = SPACING / accepted
                self._observed_until = self._blocked_until + OBSERVED_RATE_SECONDS

    def acquire(
        self, requests_per_second: float | None = None, *, stop: threading.Event | None = None
    ) -> bool:
        """
        Wait until the caller may send one request.

        :param requests_per_second: maximum rate; ``None`` for no limit
        :param stop: ends the wait when it is set
        :returns: ``False`` if ``stop`` is set, so that the request must not be sent
        """
        stop = stop or threading.Event()
        while not self._turn.acquire(timeout=STOP_CHECK_SECONDS):
            if stop.is_set():
                return False
        try:
            while (seconds := max(self._blocked_until, self._next_at) - self.clock()) > 0:
                if self.sleep(seconds, stop):
                    return False
            if stop.is_set():
                return False
            with self._lock:
                now = self.clock()
                _count_last_second(self._sent, now)
                self._sent.append(now)
                gap = SPACING / requests_per_second if requests_per_second else 0.0
                observed_gap = self._observed_gap if now < self._observed_until else 0.0
                self._next_at = now + max(gap, observed_gap)
            return True
        finally:
            self._turn.release()


def _count_last_second(moments: deque[float], now: float) -> int:
    """Remove moments that are older than one second, and count the others."""
    while moments and moments[0] <= now - 1:
        moments.popleft()
    return len(moments)


_shared: dict[str, RateLimiter] = {}
_shared_lock = threading.Lock()


def shared_rate_limiter(config: ClientConfig) -> RateLimiter:
    """Return the rate limiter that all clients of this origin and key share in this process."""
    # A digest, so that no global variable keeps the key for the life of the process.
    account = hashlib.sha256(f"{config.origin}\0{config.key}".encode()).hexdigest()
    with _shared_lock:
        return _shared.setdefault(account, RateLimiter())
