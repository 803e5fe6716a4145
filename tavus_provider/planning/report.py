"""The report: what became of every replica of a plan, or of a batch of it."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, NotRequired, TypedDict, cast

from tavus_provider.exceptions import PlanRejectedError
from tavus_provider.outcomes import ORDER, UNFINISHED, Outcome
from tavus_provider.planning.documents import find_mismatch
from tavus_provider.planning.plan import MAX_XCOM_BYTES, Plan, PlanRow, fits_xcom


class Result(NamedTuple):
    """What became of one replica, and how that is known."""

    outcome: Outcome
    detail: str


class ReportItem(TypedDict):
    """What became of one replica; ``outcome`` is a value of :class:`.Outcome`."""

    replica_id: str
    outcome: str
    detail: str


class Report(TypedDict):
    """
    The report of a task. ``counts`` has every outcome, and its numbers sum to the number of planned replicas.

    ``tavus_conn_id`` and ``origin`` are those of the plan. ``ledger`` names the recorded attempt, or the
    job of several. ``ledger_head`` is the digest of the last record that the attempt had when the report
    was made, or one digest of those of all attempts of the job. It depends on all records before, so a kept
    report shows what the ledger was. In a report that was cut to fit into an XCom, ``items_left_out`` is
    the number of items that only the ledger has.
    """

    version: Literal[1]
    plan_digest: str
    tavus_conn_id: NotRequired[str]
    origin: NotRequired[str]
    hard: bool
    dry_run: bool
    counts: dict[str, int]
    items: list[ReportItem]
    ledger: str | None
    ledger_head: NotRequired[str]
    items_left_out: NotRequired[int]


def make_report(
    plan: Plan,
    rows: Iterable[PlanRow],
    results: Mapping[str, Result],
    *,
    dry_run: bool,
    ledger: str | None,
    ledger_head: str | None = None,
) -> Report:
    """
    Make the report about rows of a plan.

    :param results: the result for the ``replica_id`` of every row
    :param ledger: the name of the recorded attempt, or of the job that several attempts have in common
    :param ledger_head: what the ledger ends with there; ``None`` if nothing is recorded
    """
    items: list[ReportItem] = []
    for row in rows:
        outcome, detail = results[row["replica_id"]]
        items.append({"replica_id": row["replica_id"], "outcome": outcome.value, "detail": detail})
    counts = Counter(item["outcome"] for item in items)
    report: Report = {
        "version": 1,
        "plan_digest": plan["digest"],
        "tavus_conn_id": plan["tavus_conn_id"],
        "origin": plan["origin"],
        "hard": plan["hard"],
        "dry_run": dry_run,
        "counts": {outcome.value: counts[outcome.value] for outcome in ORDER},
        "items": items,
        "ledger": ledger,
    }
    return report if ledger_head is None else {**report, "ledger_head": ledger_head}


def dry_run_report(plan: Plan, rows: Sequence[PlanRow] | None = None) -> Report:
    """Make the report of a dry run: every replica is skipped. Without ``rows`` it covers the whole plan."""
    rows = plan["delete"] if rows is None else rows
    results = {row["replica_id"]: _DRY_RUN for row in rows}
    return make_report(plan, rows, results, dry_run=True, ledger=None)


STOPPED_EARLY: Final = "the task ended before it had read the ledger"


def unread_result(reason: str, *, retried: bool) -> Result:
    """
    Return the result of an object about which an attempt did not read what earlier attempts did.

    :param reason: why this attempt ended
    :param retried: whether there was an earlier attempt
    """
    if retried:
        return Result(Outcome.UNKNOWN, f"not attempted: {reason}; an earlier attempt may have deleted it")
    return Result(Outcome.NOT_ATTEMPTED, f"not attempted: {reason}")


def unread_report(plan: Plan, rows: Sequence[PlanRow], reason: str, *, retried: bool) -> Report:
    """Make the report of an attempt that ended early; see :func:`unread_result`."""
    result = unread_result(reason, retried=retried)
    results = {row["replica_id"]: result for row in rows}
    return make_report(plan, rows, results, dry_run=False, ledger=None)


def truncate_report(report: Report) -> Report:
    """
    Return a report that fits into an XCom: the unfinished items first, and as many items as fit.

    ``counts`` stay those of all items. A report that fits is returned unchanged.
    """
    if fits_xcom(report):
        return report
    items = sorted(report["items"], key=lambda item: item["outcome"] not in UNFINISHED)
    sizes = itertools.accumulate(len(json.dumps(item)) + 2 for item in items)
    frame = len(json.dumps({**report, "items": [], "items_left_out": len(items)}))
    kept = sum(size <= MAX_XCOM_BYTES - frame for size in sizes)
    return {**report, "items": items[:kept], "items_left_out": len(items) - kept}


def unfinished_message(report: Report) -> str | None:
    """Return why a task with this report must fail, or ``None`` if every replica was dealt with."""
    unfinished = sum(report["counts"][outcome] for outcome in UNFINISHED)
    if not unfinished:
        return None
    total = sum(report["counts"].values())
    return f"{unfinished} of {total} planned replicas may still exist: see the report"


def summarize(
    plan: Plan,
    reports: Iterable[object],
    *,
    recorded: Mapping[str, Outcome | None],
    is_dry_run: bool,
    ledger: str | None,
    ledger_head: str | None = None,
) -> Report:
    """
    Make the report of a whole plan from the reports of its batches.

    Reports are XComs, which users of Airflow can write. Outcomes are therefore those that the ledger
    recorded; a replica that the ledger does not have is ``not_attempted``. A report only adds the details.

    :param recorded: the last recorded outcome for each id; ``None`` if only the intent to delete was recorded
    :param is_dry_run: whether the ledger shows that the plan was made for a dry run. Without any recorded
        outcome, reports of dry runs are then accepted
    :param ledger: the name of the job that the attempts of this plan have in common
    :param ledger_head: the digest of the last digests of these attempts; ``None`` without any
    :raises PlanRejectedError: if a report is not one of this plan, or two reports cover the same replica
    """
    planned = {row["replica_id"] for row in plan["delete"]}
    reported: dict[str, Result] = {}
    dry_runs = []
    for value in reports:
        report = _check_report(value, plan)
        dry_runs.append(report["dry_run"])
        for item in report["items"]:
            replica_id = item["replica_id"]
            if replica_id in reported or replica_id not in planned:
                raise PlanRejectedError(
                    f"replica {replica_id} is in two reports, or in a report but not in the plan: pass "
                    "exactly the reports of the batches of this plan"
                )
            reported[replica_id] = Result(Outcome(item["outcome"]), item["detail"])
    dry_run = is_dry_run and not recorded and bool(dry_runs) and all(dry_runs)
    results = {
        replica_id: _DRY_RUN if dry_run else _recorded_result(replica_id, recorded, reported.get(replica_id))
        for replica_id in planned
    }
    return make_report(plan, plan["delete"], results, dry_run=dry_run, ledger=ledger, ledger_head=ledger_head)


_DRY_RUN = Result(Outcome.SKIPPED, "dry run")


def _recorded_result(
    replica_id: str, recorded: Mapping[str, Outcome | None], reported: Result | None
) -> Result:
    """Return the result of one replica. The report has its detail, if it agrees with the ledger."""
    outcome = recorded.get(replica_id, Outcome.NOT_ATTEMPTED) or Outcome.UNKNOWN
    if reported is not None and reported.outcome is outcome:
        return reported
    if reported is None:
        where = "not in the reports" if replica_id in recorded else "in neither the reports nor the ledger"
    else:
        where = f"the report of its task says {reported.outcome.value}"
    if replica_id not in recorded:
        return Result(outcome, where if reported is None else f"{where}, but it is not in the ledger")
    if recorded[replica_id] is None:
        return Result(outcome, f"{where}; the ledger has only the intent to delete it")
    return Result(outcome, f"{where}; outcome taken from the ledger")


def _check_report(value: object, plan: Plan) -> Report:
    mismatch = find_mismatch(value, Report, name="report")
    if mismatch is None:
        report = cast("Report", value)
        if report["plan_digest"] != plan["digest"]:
            mismatch = "report.plan_digest is that of another plan"
        else:
            unknown = [item["outcome"] for item in report["items"] if item["outcome"] not in ORDER]
            if not unknown:
                return report
            mismatch = f"report has the unknown outcome {ascii(unknown[0])[:40]}"
    raise PlanRejectedError(
        f"a report is not one of this plan: {mismatch}. Pass the output of its apply tasks"
    )
