"""
The page on which a person approves or rejects a plan, as Markdown for Airflow's Required Actions.

Names and other text from outside are shown as plain text: no markup, no links.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from tavus_provider.planning.plan import Plan, PlanRow
from tavus_provider.rendering.labels import rule_text
from tavus_provider.rendering.tables import format_days, format_last_use, format_name
from tavus_provider.sanitize import escape_line

MAX_ROWS: Final = 4_000
"""Maximum number of rows of the page. Longer pages are not read, and a database should not hold them."""

SUMMARY_ABOVE: Final = 10
"""Above this number of replicas, a summary by rule comes before the list."""

_COLUMNS: Final = ("replica", "name", "age", "last used", "rule", "reason")
_LINK: Final = re.compile(r"(?<=http)(?=s?://)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)
_WORD_JOINER: Final = "\u2060"


def approval_subject(plan: Plan) -> str:
    """Return the headline of the page."""
    count = len(plan["delete"])
    return f"Delete {count:,} Tavus replica{'s' * (count != 1)} permanently?"


def approval_page(plan: Plan) -> str:
    """Return the Markdown page that shows a plan for permanent deletes."""
    rows = plan["delete"]
    return "\n".join(
        [
            f"**{_how_many(plan)}** of {plain_text(plan['origin'])} (connection "
            f"{plain_text(plan['tavus_conn_id'])}) would be deleted **permanently**, under the policy "
            f"{plain_text(plan['policy']['name'])}.",
            "",
            "This cannot be undone: each replica is a person's likeness, and its training footage is deleted "
            "with it. Conversations and videos made with it are not deleted.",
            "",
            "- **Approve**: the account is read again, and only replicas that are listed below and still "
            "match the policy are deleted.",
            "- **Reject**: nothing is deleted, and the run ends.",
            f"- **No answer** until {plain_text(plan['valid_until'])}: nothing is deleted, and the run "
            "fails.",
            "",
            f"Digest of this plan: `{plan['digest']}`",
            "",
            *(_summary(rows) if len(rows) > SUMMARY_ABOVE else ()),
            *_list(rows[:MAX_ROWS], made_at=datetime.fromisoformat(plan["made_at"])),
            *(_left_out(rows[MAX_ROWS:]) if len(rows) > MAX_ROWS else ()),
        ]
    )


def plain_text(text: str) -> str:
    """
    Return text so that Markdown and HTML show it as it is and make no link of it.

    Airflow's Markdown makes links of addresses after it has resolved the character references. So an
    invisible word joiner is inserted into every address.
    """
    broken = _LINK.sub(_WORD_JOINER, escape_line(text))
    return re.sub(r"[^A-Za-z0-9 ,-]", lambda match: f"&#{ord(match[0])};", broken)


def _how_many(plan: Plan) -> str:
    count, listed = len(plan["delete"]), plan["listed"]
    if count == 1 >= listed:
        # A plan for one replica that a person chose knows only that replica, not the size of the account.
        return "1 replica"
    # Soft-deleted replicas that Tavus no longer lists: nothing but their ids is known.
    unlisted = sum(row["source"] == "soft_deleted" and row["created_at"] is None for row in plan["delete"])
    return f"{count:,} of {listed + unlisted:,} replicas"


def _list(rows: Sequence[PlanRow], *, made_at: datetime) -> list[str]:
    lines = [_line(_COLUMNS), _line(["---"] * len(_COLUMNS))]
    for row in rows:
        last_used_at = row["last_used_at"]
        cells = (
            row["replica_id"],
            format_name(row["replica_name"]),
            format_days(row["age_days"]),
            format_last_use(datetime.fromisoformat(last_used_at) if last_used_at else None, now=made_at),
            _rule(row),
            row["reason"],
        )
        lines.append(_line([plain_text(cell) for cell in cells]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _left_out(rows: Sequence[PlanRow]) -> list[str]:
    rules = ", ".join(
        f"{count:,} under {plain_text(rule)}" for rule, count in Counter(map(_rule, rows)).most_common()
    )
    return [
        "",
        f"**And {len(rows):,} more ({rules}), which are approved too.** They are in the plan itself, which "
        "is stored next to the ledger under the digest above.",
    ]


def _summary(rows: Sequence[PlanRow]) -> list[str]:
    counts = Counter(map(_rule, rows))
    ages: dict[str, list[int]] = {rule: [] for rule in counts}
    for row in rows:
        if row["age_days"] is not None:  # unknown for a replica that is no longer listed
            ages[_rule(row)].append(row["age_days"])
    return [
        "| rule | replicas | youngest | oldest |",
        "|---|--:|--:|--:|",
        *(
            f"| {plain_text(rule)} | {count:,} | {format_days(min(ages[rule], default=None))} "
            f"| {format_days(max(ages[rule], default=None))} |"
            for rule, count in counts.most_common()
        ),
        "",
        f"All {len(rows):,}, one by one:",
        "",
    ]


def _rule(row: PlanRow) -> str:
    # In parentheses, because a rule can have the same name as the setting.
    return rule_text(row["rule"], source=row["source"])
