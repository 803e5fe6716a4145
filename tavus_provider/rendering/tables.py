"""
Decisions and reports as tables and sentences, for the log of a task and for the commands.

The columns of a table are defined once, in ``_decision_columns`` and ``_report_columns``: to add a column,
add it there. The reason comes right after the name, so that a log in a browser shows it without scrolling.
Names and details come from outside and are escaped here.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Generic, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tavus_provider.outcomes import UNFINISHED
from tavus_provider.planning.plan import Plan
from tavus_provider.planning.report import Report, ReportItem
from tavus_provider.rendering.labels import label
from tavus_provider.retention.engine import Decision
from tavus_provider.retention.verdict import Verdict
from tavus_provider.sanitize import escape_line

MAX_ROWS: Final = 200
"""Maximum number of rows of a table in the log; the rows that are left out are counted."""

_MAX_CELL = 1_000
_LOG_WIDTH = 1_000
"""Columns of a log line: so wide that no row is wrapped. One replica is one line of the log."""

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """
    One column of a table.

    :param cell: returns the text of one row
    :param fold: whether a narrow terminal may fold the text
    """

    title: str
    cell: Callable[[Row], str]
    fold: bool = False


# --- decisions ------------------------------------------------------------------------------------------


def _decision_columns(now: datetime) -> tuple[Column[Verdict], ...]:
    return (
        Column("verdict", lambda verdict: label(verdict.status).text),
        Column("replica", lambda verdict: verdict.replica.replica_id),
        Column("name", lambda verdict: format_name(verdict.replica.replica_name), fold=True),
        Column("reason", lambda verdict: verdict.reason, fold=True),
        Column("age", lambda verdict: format_days(verdict.age_days)),
        Column("last used", lambda verdict: format_last_use(verdict.last_used_at, now=now)),
    )


def decision_table(decision: Decision, *, now: datetime, max_rows: int | None = None) -> Table:
    """
    Return a table with the verdict on every replica and its reason; replicas to delete come first.

    :param now: the time of the decision, with a time zone
    :param max_rows: maximum number of rows; ``None`` for all
    """
    return make_table(
        _decision_columns(now),
        decision.verdicts[:max_rows],
        style=lambda verdict: label(verdict.status).style,
    )


def decision_lines(decision: Decision, *, now: datetime) -> list[str]:
    """
    Return the lines of :func:`decision_table` for a log.

    :param now: the time of the decision, with a time zone
    """
    return _lines(decision_table(decision, now=now))


def due_lines(decision: Decision, *, now: datetime, max_rows: int = MAX_ROWS) -> list[str]:
    """
    Return what a person has to look at, for the log: a table for each status that is not simply kept.

    :param now: the time of the decision, with a time zone
    :param max_rows: maximum number of rows of each table; a last line counts the others
    """
    lines: list[str] = []
    columns = _decision_columns(now)[1:]  # the heading is the verdict
    for heading, verdicts in (
        ("to delete", decision.delete),
        ("scheduled for a later delete", decision.scheduled),
        ("undetermined, and therefore kept", decision.undetermined),
    ):
        if not verdicts:
            continue
        lines.append(f"{len(verdicts):,} {heading}:")
        lines += _lines(make_table(columns, verdicts[:max_rows], style=lambda verdict: ""))
        if len(verdicts) > max_rows:
            lines.append(f"... and {len(verdicts) - max_rows:,} more")
    return lines


def decision_sentence(decision: Decision) -> str:
    """Return one sentence with the counts of a decision."""
    kept = ", ".join(f"{count:,} {code}" for code, count in decision.keep.items()) or "none"
    scheduled = f"{len(decision.scheduled):,} scheduled, " if decision.scheduled else ""
    overdue = f"; {len(decision.overdue):,} overdue" if decision.overdue else ""
    return (
        f"{len(decision.delete):,} of {decision.listed + decision.unlisted:,} replicas to delete, {scheduled}"
        f"{len(decision.undetermined):,} undetermined and kept, others kept: {kept}{overdue}"
    )


# --- reports --------------------------------------------------------------------------------------------


def _report_columns(plan: Plan) -> tuple[Column[ReportItem], ...]:
    rows = {row["replica_id"]: row for row in plan["delete"]}
    return (
        Column("outcome", lambda item: label(item["outcome"]).text),
        Column("replica", lambda item: item["replica_id"]),
        Column("name", lambda item: format_name(rows[item["replica_id"]]["replica_name"]), fold=True),
        Column("detail", lambda item: item["detail"], fold=True),
    )


def report_table(report: Report, plan: Plan, *, max_rows: int | None = None) -> Table:
    """
    Return a table with the outcome of every planned replica; those that may still exist come first.

    :param plan: the plan of the report; it has the names
    :param max_rows: maximum number of rows; ``None`` for all
    """
    items = sorted(report["items"], key=lambda item: item["outcome"] not in UNFINISHED)
    return make_table(
        _report_columns(plan), items[:max_rows], style=lambda item: label(item["outcome"]).style
    )


def report_lines(report: Report, plan: Plan, *, max_rows: int = MAX_ROWS) -> list[str]:
    """
    Return the lines of :func:`report_table` for a log.

    :param plan: the plan of the report; it has the names
    :param max_rows: maximum number of rows; a last line counts the others
    """
    lines = _lines(report_table(report, plan, max_rows=max_rows))
    if (count := len(report["items"])) > max_rows:
        lines.append(f"... and {count - max_rows:,} more")
    return lines


def report_sentence(report: Report) -> str:
    """Return one sentence with the counts of a report."""
    counts = ", ".join(
        f"{count:,} {label(outcome).text}" for outcome, count in report["counts"].items() if count
    )
    how = "dry run, nothing was sent" if report["dry_run"] else "hard" if report["hard"] else "soft"
    return f"{len(report['items']):,} planned ({how}): {counts or 'nothing to do'}"


# --- cells ----------------------------------------------------------------------------------------------


def format_name(name: str | None) -> str:
    """Return a replica name as one short line."""
    return "(no name)" if name is None else escape_line(name, 40)


def format_days(days: int | None) -> str:
    """Return an age in whole days, or ``?`` if it is unknown."""
    return "?" if days is None else f"{days:,} d"


def format_last_use(moment: datetime | None, *, now: datetime) -> str:
    """Return how many days ago a replica was last used, or ``-`` if no use is known."""
    return "-" if moment is None else f"{(now.astimezone(UTC) - moment).days:,} d ago"


def make_table(columns: Iterable[Column[Row]], rows: Iterable[Row], *, style: Callable[[Row], str]) -> Table:
    """
    Return a table; the text of all cells is made safe.

    :param style: returns the style of a row, for rich
    """
    columns = tuple(columns)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.title, overflow="fold", no_wrap=not column.fold)
    for row in rows:
        # As Text: rich reads markup and emoji codes in plain strings.
        cells = (Text(escape_line(column.cell(row), _MAX_CELL)) for column in columns)
        table.add_row(*cells, style=style(row))
    return table


def _lines(table: Table) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=_LOG_WIDTH, color_system=None).print(table)
    return [line[1:].rstrip() for line in out.getvalue().splitlines() if line.strip()]
