"""
Plans, verdicts and reports as a person reads them: tables for the log, Markdown for the approval.

Names come from the server; here they become plain text, whatever they hold. Knows neither Airflow nor HTTP.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tavus_provider.planning.plan import Plan
from tavus_provider.retention.engine import Decision
from tavus_provider.sanitize import escape_line

MAX_ROWS = 200
"""Rows of a table in the log; what is cut is counted."""

SHORT_PAGE = 10
"""Replicas on an approval page above which a summary comes first."""
MAX_SHOWN = 4_000
"""Rows of the page on which a person decides: what is more, nobody reads and no database should hold."""

_ADDRESS = re.compile(r"(?<=http)(?=s?://)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)
_WORDS = {"expired": "DELETE", "scheduled": "scheduled", "undetermined": "keep, in doubt"}


def decision_table(decision: Decision, *, now: datetime, max_rows: int = MAX_ROWS) -> list[str]:
    """Return the lines of a table with every verdict and its reason, what is to be deleted first."""
    shown, cut = decision.verdicts[:max_rows], decision.verdicts[max_rows:]
    lines = _table(
        ("verdict", "replica", "name", "age", "last used", "reason"),
        (
            (
                _WORDS.get(verdict.status, "keep"),
                verdict.replica.replica_id,
                _name(verdict.replica.replica_name),
                _days(verdict.age_days),
                _ago(verdict.last_used_at, now),
                verdict.reason,
            )
            for verdict in shown
        ),
    )
    if cut:
        counts = Counter(verdict.reason_code for verdict in cut).most_common()
        lines.append(f"... and {len(cut):,} more: " + ", ".join(f"{n:,} {word}" for word, n in counts))
    return lines


def decision_sentence(decision: Decision) -> str:
    """Return a decision in one sentence."""
    kept = ", ".join(f"{count:,} {word}" for word, count in decision.keep.items()) or "none"
    scheduled = f"{len(decision.scheduled):,} scheduled, " if decision.scheduled else ""
    return (
        f"{len(decision.delete):,} of {decision.listed:,} replicas to delete, {scheduled}"
        f"{len(decision.undetermined):,} in doubt and kept, others kept: {kept}"
    )


def report_sentence(report: Mapping[str, Any]) -> str:
    """Return a report in one sentence."""
    counts = ", ".join(f"{count:,} {word}" for word, count in report["counts"].items() if count)
    how = "dry run, nothing was sent" if report["dry_run"] else "hard" if report["hard"] else "soft"
    return f"{len(report['items']):,} planned ({how}): {counts or 'nothing to do'}"


def report_table(report: Mapping[str, Any], plan: Plan, *, max_rows: int = MAX_ROWS) -> list[str]:
    """Return the lines of a table with the outcome of every planned replica, the bad ones first."""
    names = {row["replica_id"]: row["replica_name"] for row in plan["delete"]}
    urgent = ("unknown", "failed", "not_attempted")
    items = sorted(report["items"], key=lambda item: item["outcome"] not in urgent)
    lines = _table(
        ("outcome", "replica", "name", "detail"),
        (
            (item["outcome"], item["replica_id"], _name(names[item["replica_id"]]), item["detail"])
            for item in items[:max_rows]
        ),
    )
    if len(items) > max_rows:
        lines.append(f"... and {len(items) - max_rows:,} more")
    return lines


def approval_subject(plan: Plan) -> str:
    """Return the headline over a plan that waits for approval."""
    count = len(plan["delete"])
    return f"Delete {count:,} Tavus replica{'s' * (count != 1)} permanently?"


def approval_page(plan: Plan) -> str:
    """Return the Markdown page on which a person decides about a plan; every name is plain text."""
    now = datetime.fromisoformat(plan["made_at"])
    rows = [
        "| replica | name | age | last used | rule | reason |",
        "|---|---|---|---|---|---|",
        *(
            "| "
            + " | ".join(
                plain(cell)
                for cell in (
                    row["replica_id"],
                    _name(row["replica_name"]),
                    _days(row["age_days"]),
                    _ago(datetime.fromisoformat(row["last_used_at"]) if row["last_used_at"] else None, now),
                    row["rule"],
                    row["reason"],
                )
            )
            + " |"
            for row in plan["delete"][:MAX_SHOWN]
        ),
    ]
    count, listed = len(plan["delete"]), plan["listed"]
    # By hand one replica is looked at, and not how many there are.
    how_many = "1 replica" if count == 1 >= listed else f"{count:,} of {listed:,} replicas"
    if count > MAX_SHOWN:
        rules = Counter(row["rule"] for row in plan["delete"][MAX_SHOWN:]).most_common()
        rest = ", ".join(f"{many:,} under {plain(rule)}" for rule, many in rules)
        rows += [
            "",
            f"**And {count - MAX_SHOWN:,} more ({rest}), which are approved too.** They are in the plan "
            "itself, which lies beside the ledger under the digest below.",
        ]
    return "\n".join(
        [
            f"**{how_many}** of {plain(plan['origin'])} (connection "
            f"{plain(plan['tavus_conn_id'])}) would be deleted **permanently**, under the policy "
            f"{plain(plan['policy']['name'])}.",
            "",
            "This cannot be undone: each replica is a person's likeness, and it goes together with its "
            "training footage. Conversations and videos made with it are not deleted.",
            "",
            "- **Approve**: before each delete the account is read again; only what is listed below and is "
            "still to go is deleted.",
            "- **Reject**: nothing is deleted, and the run ends.",
            f"- **No answer** until {plain(plan['valid_until'])}: nothing is deleted, and the run fails.",
            "",
            f"Digest of this plan: `{plan['digest']}`",
            "",
            *(_by_rule(plan["delete"]) if count > SHORT_PAGE else ()),
            *rows,
        ]
    )


def _by_rule(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines that sum a long list up before it begins."""
    many = Counter(row["rule"] for row in rows)
    ages: dict[str, list[int]] = {rule: [] for rule in many}
    for row in rows:
        if row["age_days"] is not None:  # of what is no longer listed it is not known
            ages[row["rule"]].append(row["age_days"])
    return [
        "| rule | replicas | youngest | oldest |",
        "|---|--:|--:|--:|",
        *(
            f"| {plain(rule)} | {count:,} | {_days(min(ages[rule], default=None))} "
            f"| {_days(max(ages[rule], default=None))} |"
            for rule, count in many.most_common()
        ),
        "",
        f"All {len(rows):,}, one by one:",
        "",
    ]


def plain(text: str) -> str:
    """
    Return text so that neither Markdown nor HTML reads anything into it, and no link is made of it.

    Airflow's Markdown links addresses after it has resolved the references, so a word joiner, which is
    not seen, stands in each.
    """
    apart = _ADDRESS.sub("\u2060", escape_line(text))
    return re.sub(r"[^A-Za-z0-9 ,-]", lambda match: f"&#{ord(match[0])};", apart)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    table = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    out = io.StringIO()
    # So wide that no line is ever wrapped: one replica, one line of the log.
    Console(file=out, width=1_000, color_system=None).print(table)
    return [line[1:].rstrip() for line in out.getvalue().splitlines() if line.strip()]


def _name(name: str | None) -> str:
    return "(no name)" if name is None else escape_line(name, 40)


def _days(days: int | None) -> str:
    return "?" if days is None else f"{days:,} d"


def _ago(moment: datetime | None, now: datetime) -> str:
    return "-" if moment is None else f"{(now.astimezone(UTC) - moment).days:,} d ago"
