"""
What became of one replica of a plan: the values of ``outcome`` in reports and in the ledger.

To add an outcome, add it to :class:`Outcome` and to each group below that it belongs to.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Outcome(StrEnum):
    """The outcome of one replica. Members are in the order in which reports count them."""

    DELETED = "deleted"
    """Tavus confirmed the delete with a 2xx response."""
    CONFIRMED = "confirmed"
    """The delete got no usable response; a later read shows that the replica is gone."""
    ALREADY_GONE = "already_gone"
    """Tavus did not know the replica, or no longer listed it, before this attempt deleted it."""
    FAILED = "failed"
    """The delete was certainly not applied: rejected, rate limited, or Tavus was unreachable."""
    UNKNOWN = "unknown"
    """The delete may have been applied."""
    NOT_ATTEMPTED = "not_attempted"
    """No delete was sent, because the task stopped first."""
    SKIPPED = "skipped"
    """No delete was sent, because the replica changed, no longer expires, or the run was a dry run."""


GONE: Final = frozenset({Outcome.DELETED, Outcome.CONFIRMED})
"""This attempt deleted the replica."""

ABSENT: Final = GONE | {Outcome.ALREADY_GONE}
"""The replica does not exist any more, as far as was seen."""

NOT_DELETED: Final = frozenset({Outcome.ALREADY_GONE, Outcome.FAILED, Outcome.NOT_ATTEMPTED, Outcome.SKIPPED})
"""This attempt certainly did not delete the replica."""

MAY_BE_DELETED: Final = frozenset(Outcome) - NOT_DELETED
"""This attempt deleted the replica, or may have. A new outcome is one of these unless it is named above."""

UNFINISHED: Final = frozenset({Outcome.FAILED, Outcome.UNKNOWN, Outcome.NOT_ATTEMPTED})
"""The replica may still exist although it was to be deleted. A task with one of these is not green."""

ORDER: Final = tuple(Outcome)
"""The order of the counts in a report."""

HELD: Final = "held"
"""
What reports of erasures have in place of an outcome for an object under legal hold, which is not deleted.

It is no member of :class:`Outcome`: nothing was tried, and a person decides when the hold ends.
"""
