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

    As an XCom, the rows have no ``checks`` if it would be too large with them.
    """

    version: Literal[1]
    rows: list[VerdictRow]
    counts: dict[str, int]
    verdicts_at: NotRequired[str]
    """Where the complete document is stored, if it is too large for an XCom."""
    notice: NotRequired[str]
    """Why ``rows`` is empty, if there are too many verdicts for an XCom."""


def make_verdicts(decision: Decision) -> Verdicts:
    """Return the verdicts of a decision: all rows, with what the checks saw."""
    counts = dict(sorted(Counter(verdict.reason_code.value for verdict in decision.verdicts).items()))
    rows = [
        cast(
            "VerdictRow", verdict.to_json() | {"checks": [list(seen) for seen in decision.checks_of(verdict)]}
        )
        for verdict in decision.verdicts
    ]
    return {"version": 1, "rows": rows, "counts": counts}


def fit_xcom(verdicts: Verdicts) -> Verdicts:
    """Return verdicts without checks, or without rows, if they would not fit into an XCom."""
    if len(verdicts["rows"]) <= MAX_ROWS:
        without_checks = [cast("VerdictRow", {**row}) for row in verdicts["rows"]]
        for row in without_checks:
            row.pop("checks", None)
        for rows in (verdicts["rows"], without_checks):
            if len(json.dumps(rows, separators=(",", ":"))) <= MAX_XCOM_BYTES:
                return {**verdicts, "rows": rows}
    notice = f"{len(verdicts['rows'])} verdicts are too many for an XCom"
    return {**verdicts, "rows": [], "notice": notice}


def with_location(verdicts: Verdicts, verdicts_at: str | None) -> Verdicts:
    """
    Return an XCom of verdicts that says where the complete document is.

    :param verdicts_at: where it is stored, for people to read; ``None`` if it could not be stored
    """
    located: Verdicts = {**verdicts}
    if verdicts_at is not None:
        located["verdicts_at"] = verdicts_at
    if "notice" in located:
        located["notice"] += (
            " and could not be stored; the log of the task says why"
            if verdicts_at is None
            else f"; they are stored at {verdicts_at}"
        )
    return located
