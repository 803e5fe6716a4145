"""The legal holds that bind the plan of an erasure, and how recent they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime

from tavus_provider.execution.freshness import Freshness
from tavus_provider.planning.erasure import ErasurePlan, ErasureRow
from tavus_provider.planning.erasure_holds import Hold, HoldScope, find_holds


class HoldGuard:
    """
    Reads the legal holds, and reads them again before a delete is sent if they are too old.

    :param read_held: returns the ids and keys under legal hold, given the current time
    :param now: returns the wall clock
    :param clock: monotonic time in seconds
    """

    def __init__(
        self,
        plan: ErasurePlan,
        *,
        read_held: Callable[[datetime], frozenset[str]],
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._read_held = read_held
        self._now = now
        self._clock = clock
        self._freshness: Freshness | None = None
        self.holds: Mapping[str, Hold] = {}
        """The holds as they were read last, by the key of the object."""

    @property
    def failure(self) -> str | None:
        """Why no delete may be sent any more."""
        return None if self._freshness is None else self._freshness.failure

    def read(self) -> Mapping[str, Hold]:
        """
        Read the legal holds, and return them.

        :raises TavusValidationError: if they cannot be read
        """
        started = self._clock()
        self._find_objections()
        self._freshness = Freshness(
            self._find_objections,
            valid_until=datetime.fromisoformat(self._plan["valid_until"]),
            now=self._now,
            read_at=started,
            clock=self._clock,
        )
        return self.holds

    def may_send(self, key: str) -> bool:
        """
        Return whether a delete may be sent now; see :meth:`.Freshness.confirm`.

        :raises RequestCancelledError: if it must not be sent
        """
        return True if self._freshness is None else self._freshness.confirm(key)

    def _find_objections(self) -> dict[str, str]:
        rows: list[ErasureRow] = [*self._plan["delete"], *self._plan["held"], *self._plan["left"]]
        scope = HoldScope(self._plan["hold_covers"])
        held, undetermined = self._read_held(self._now()), self._plan["undetermined"]
        self.holds = find_holds(rows, held, covers=scope, undetermined=undetermined)
        return {key: hold.reason for key, hold in self.holds.items()}
