"""What a task logs and records while it deletes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from tavus_provider.outcomes import UNFINISHED
from tavus_provider.planning.report import Result

PROGRESS_EVERY: Final = 5.0
"""Seconds between two lines of progress, for plans with more than ``LOG_EACH_UP_TO`` replicas."""

RECORD_EVERY: Final = 100
"""Number of outcomes that are recorded together, unless a second has passed since the last record."""

LOG_EACH_UP_TO: Final = 50
"""The largest plan for which each replica gets its own log line."""


class Progress:
    """Log each result of a small plan, and the pace of a large one."""

    def __init__(self, total: int, log: Callable[[str], None]) -> None:
        self._total = total
        self._log = log
        self._done = 0
        self._started = self._logged = time.monotonic()

    def advance(self, replica_id: str, result: Result) -> None:
        """Count one more result, and log what is worth it."""
        self._done += 1
        now = time.monotonic()
        rate = self._done / max(now - self._started, 1e-6)
        left = (self._total - self._done) / rate
        line = f"{self._done} of {self._total} done, {rate:.1f}/s, {left:.0f} s left"
        if self._total <= LOG_EACH_UP_TO or result.outcome in UNFINISHED:
            self._log(f"{result.outcome.value}: {replica_id} ({result.detail}); {line}")
        elif now - self._logged >= PROGRESS_EVERY or self._done == self._total:
            self._logged = now
            self._log(line)


class OutcomeRecorder:
    """
    Log each finished delete, and record the outcomes in groups.

    :param total: number of deletes
    :param write: records outcomes by id
    """

    def __init__(
        self, total: int, *, log: Callable[[str], None], write: Callable[[dict[str, str]], None]
    ) -> None:
        self._progress = Progress(total, log)
        self._write = write
        self._unrecorded: dict[str, str] = {}
        self._recorded_at = time.monotonic()

    def add(self, key: str, result: Result) -> None:
        """Log a result, and record it with others when there are enough or a second has passed."""
        self._progress.advance(key, result)
        self._unrecorded[key] = result.outcome.value
        if len(self._unrecorded) >= RECORD_EVERY or time.monotonic() - self._recorded_at >= 1.0:
            self.flush()
            self._recorded_at = time.monotonic()

    def flush(self) -> None:
        """Record what is not recorded yet."""
        if self._unrecorded:
            self._write(self._unrecorded)
            self._unrecorded = {}
