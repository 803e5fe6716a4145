"""What every operator that makes a report does with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from tavus_provider.operators.assets import PRUNED, emit_event
from tavus_provider.operators.base import push_xcom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from tavus_provider.planning.plan import Plan
    from tavus_provider.planning.report import Report

R = TypeVar("R", bound=Mapping[str, Any])


def publish_report(
    operator: BaseOperator, context: Context, make_report: Callable[[], Report], *, plan: Plan
) -> Report:
    """
    Push a report and its summary as the XComs ``return_value`` and ``summary``, and log both.

    They are pushed here so that they exist even if the task fails afterwards.

    :param make_report: returns the report
    :param plan: the plan of the report; it has the names of the replicas
    :returns: the report as it was pushed: cut if it is too large for an XCom
    """
    from tavus_provider.planning.report import truncate_report
    from tavus_provider.rendering.tables import report_lines, report_sentence

    return publish(
        operator,
        context,
        make_report,
        truncate=truncate_report,
        summarize=report_sentence,
        describe=lambda report: report_lines(report, plan),
    )


def publish(
    operator: BaseOperator,
    context: Context,
    make_report: Callable[[], R],
    *,
    truncate: Callable[[R], R],
    summarize: Callable[[R], str],
    describe: Callable[[R], Iterable[str]],
) -> R:
    """
    Push a report of any kind and its summary, and log both.

    If that is interrupted, for example by ``execution_timeout``, the report is made and pushed again.

    :param truncate: returns the report, cut if it is too large for an XCom
    :param summarize: returns one sentence about the report
    :param describe: returns the lines of the log
    :returns: the report as it was pushed
    """

    def push() -> tuple[R, R, str]:
        report = make_report()
        pushed, summary = truncate(report), summarize(report)
        push_report(context, pushed, summary)
        return report, pushed, summary

    # Pushed first: after a stop, there is little time.
    try:
        report, pushed, summary = push()
    except BaseException:
        push()
        raise
    for line in describe(report):
        operator.log.info("%s", line)
    operator.log.info("%s", summary)
    return pushed


def push_report(context: Context, report: Mapping[str, Any], summary: str) -> None:
    """Push the XComs ``return_value`` and ``summary``."""
    push_xcom(context, "return_value", report)
    push_xcom(context, "summary", summary)


def emit_pruned(context: Context, report: Report) -> None:
    """Emit the event of the asset ``tavus_replicas_pruned`` for the report of a whole plan."""
    extra = {
        "tavus_conn_id": report["tavus_conn_id"],
        "origin": report["origin"],
        "counts": report["counts"],
        "hard": report["hard"],
        "plan_digest": report["plan_digest"],
    }
    emit_event(context, PRUNED, extra)
