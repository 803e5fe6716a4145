"""When no further delete may start, and which deletes are in progress."""

from __future__ import annotations

import threading
from typing import Final

from tavus_provider.client.responses import is_rate_limited
from tavus_provider.exceptions import TavusError
from tavus_provider.outcomes import Outcome

MAX_CONSECUTIVE: Final = 5
"""Consecutive deletes with an unknown outcome, or that were rate limited, after which no more are sent."""

_UNKNOWN_OUTCOME: Final = "have an unknown outcome"
_RATE_LIMITED: Final = "were rate limited"


def find_trouble(outcome: Outcome, error: TavusError | None = None) -> str | None:
    """
    Return what :meth:`Halt.count` counts for a finished delete, or ``None``.

    :param error: what the delete raised, if it did
    """
    if outcome is Outcome.UNKNOWN:
        return _UNKNOWN_OUTCOME
    return _RATE_LIMITED if error is not None and is_rate_limited(error.status) else None


class Halt:
    """
    Whether no further delete may start, and why.

    ``set`` and ``stop`` take no lock, because a signal handler may interrupt it and call it again.
    """

    def __init__(self) -> None:
        self.is_set = False
        self.is_stopped = False
        """Whether the task was stopped, so that requests in progress have little time left."""
        self.reason = "the task was stopped"
        self._lock = threading.Lock()
        self._consecutive = 0

    def set(self, reason: str | None = None) -> None:
        """Start no further delete. The first reason remains."""
        if reason is not None and not self.is_set:
            self.reason = reason
        self.is_set = True

    def stop(self, reason: str | None = None) -> None:
        """Start no further delete, because the task was stopped."""
        self.set(reason)
        self.is_stopped = True

    def count(self, trouble: str | None) -> None:
        """Count a finished delete, and stop after too many consecutive ones that had trouble."""
        with self._lock:
            self._consecutive = 0 if trouble is None else self._consecutive + 1
            if self._consecutive >= MAX_CONSECUTIVE:
                self.set(f"{MAX_CONSECUTIVE} consecutive deletes {trouble}")


class InProgress:
    """Counts the deletes in progress, as a context manager for each of them."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait(self, seconds: float | None = None) -> bool:
        """
        Wait until no delete is in progress. A thread that begins later must check ``Halt`` first.

        :param seconds: how long to wait at most
        :returns: whether no delete is in progress
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, seconds)
