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


class Verdicts(TypedDict):
    """All verdicts. ``counts`` has the number of replicas for each reason code."""

    version: Literal[1]
    rows: list[VerdictRow]
    counts: dict[str, int]
    notice: NotRequired[str]
    """Why ``rows`` is empty, if there are too many verdicts for an XCom."""


def make_verdicts(decision: Decision) -> Verdicts:
    """Return the verdicts of a decision; without its rows if they would not fit into an XCom."""
    counts = dict(sorted(Counter(verdict.reason_code for verdict in decision.verdicts).items()))
    verdicts: Verdicts = {"version": 1, "rows": [], "counts": counts}
    rows = [cast("VerdictRow", verdict.to_json()) for verdict in decision.verdicts[: MAX_ROWS + 1]]
    if len(rows) <= MAX_ROWS and len(json.dumps(rows, separators=(",", ":"))) <= MAX_XCOM_BYTES:
        return {**verdicts, "rows": rows}
    return {
        **verdicts,
        "notice": f"{len(decision.verdicts)} verdicts are too many for an XCom; see the log of the task",
    }
