"""Keep what is known of holds and use recent while deletes are sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from tavus_provider.client.transport import RequestCancelledError
from tavus_provider.exceptions import TavusError

MAX_AGE: Final = 60.0
"""Seconds after which what was read of holds and use is too old for a delete."""

REREAD_AFTER: Final = 30.0
"""
Seconds after which it is read again before a delete is sent. The other half of ``MAX_AGE`` is for the reading
itself, or for the connection over which the delete is sent.
"""

MAX_UNUSED: Final = 5
"""How often in a row it is read again in vain, because it is too old when the rate limit allows a delete."""

_WAY_OUT: Final = "allow more requests per second, or run fewer tasks at the same time"


class Freshness:
    """
    Reads again what forbids deletes, before a delete is sent, if the last time was too long ago.

    Safe to share between threads: one of them reads, the others wait for it.

    :param reread: reads everything again, and returns why each replica must not be deleted any more
    :param valid_until: when the plan expires; ``None`` without a plan
    :param now: returns the wall clock
    :param read_at: when the first reading began, by ``clock``
    :param clock: monotonic time in seconds
    """

    def __init__(
        self,
        reread: Callable[[], Mapping[str, str]],
        *,
        valid_until: datetime | None,
        now: Callable[[], datetime],
        read_at: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reread = reread
        self._valid_until = valid_until
        self._now = now
        self._read_at = read_at
        self._clock = clock
        self._lock = threading.Lock()
        self._unused = 0
        self.failure: str | None = None
        """Why no delete may be sent any more."""
        self.objections: Mapping[str, str] = {}
        """Why each of some replicas must not be deleted any more."""

    def confirm(self, replica_id: str) -> bool:
        """
        Return whether a delete may be sent now; ``False`` if this was just read, so that time has passed.

        :raises RequestCancelledError: if it must not be sent
        """
        with self._lock:
            if self.failure is None and self._valid_until is not None and self._now() >= self._valid_until:
                self.failure = f"the plan expired at {self._valid_until:%Y-%m-%d %H:%M} UTC"
            is_recent = self._clock() - self._read_at <= REREAD_AFTER
            if is_recent:
                self._unused = 0
            elif self.failure is None:
                self._read_again()
            objection = self.failure or self.objections.get(replica_id)
        if objection is not None:
            raise RequestCancelledError.because(objection)
        return is_recent

    def _read_again(self) -> None:
        self._unused += 1
        if self._unused > MAX_UNUSED:
            self.failure = (
                f"what is held and in use was read again {MAX_UNUSED} times, and was older than "
                f"{REREAD_AFTER:.0f} s each time before the rate limit allowed a delete: {_WAY_OUT}"
            )
            return
        started = self._clock()
        try:
            self.objections = self._reread()
        except TavusError as error:
            self.failure = f"what is held and in use could not be read again: {error}"
            return
        seconds = self._clock() - started
        if seconds > REREAD_AFTER:
            self.failure = (
                f"reading again what is held and in use took {seconds:.0f} s, more than {REREAD_AFTER:.0f}, "
                f"so it would be older than {MAX_AGE:.0f} s when deletes are sent: {_WAY_OUT}"
            )
        self._read_at = started
