"""The ``verdicts`` document: what a plan task decided about every replica, for people and for the page."""

from __future__ import annotations

import json
from collections import Counter
from typing import Final, Literal, NotRequired, TypedDict, cast

from tavus_provider.planning.plan import MAX_XCOM_BYTES
from tavus_provider.retention.engine import Decision

MAX_ROWS: Final = 4_500


class VerdictRow(TypedDict):
    """The verdict on one replica; ``next_reason`` is what would have decided otherwise."""

    replica_id: str
    replica_name: str | None
    status: str
    reason_code: str
    reason: str
    next_reason: str | None
    age_days: int | None
    checks: NotRequired[list[list[str]]]
    """What each check saw, up to and including the one that decided, as ``[reason_code, seen]``."""


class Verdicts(TypedDict):
    """
    All verdicts. ``counts`` has the number of replicas for each reason code.

    Rows have ``checks`` if the document then still fits into an XCom, and otherwise not.
    """

    version: Literal[1]
    rows: list[VerdictRow]
    counts: dict[str, int]
    notice: NotRequired[str]
    """Why ``rows`` is empty, if there are too many verdicts for an XCom."""


def make_verdicts(decision: Decision) -> Verdicts:
    """Return the verdicts of a decision; without checks, or without rows, if they would not fit an XCom."""
    counts = dict(sorted(Counter(verdict.reason_code for verdict in decision.verdicts).items()))
    verdicts: Verdicts = {"version": 1, "rows": [], "counts": counts}
    if len(decision.verdicts) > MAX_ROWS:
        return {**verdicts, "notice": _too_many(decision)}
    rows = [cast("VerdictRow", verdict.to_json()) for verdict in decision.verdicts]
    size = _size(rows)
    if size > MAX_XCOM_BYTES:
        return {**verdicts, "notice": _too_many(decision)}
    with_checks: list[VerdictRow] = []
    for row, verdict in zip(rows, decision.verdicts, strict=True):
        checks = [list(seen) for seen in decision.checks_of(verdict)]
        size += _size(checks) + len(',"checks":')
        if size > MAX_XCOM_BYTES:
            return {**verdicts, "rows": rows}
        with_checks.append({**row, "checks": checks})
    return {**verdicts, "rows": with_checks}


def _size(value: object) -> int:
    return len(json.dumps(value, separators=(",", ":")))


def _too_many(decision: Decision) -> str:
    return f"{len(decision.verdicts)} verdicts are too many for an XCom; see the log of the task"
