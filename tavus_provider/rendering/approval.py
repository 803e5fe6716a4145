"""
The page on which a person approves or rejects a plan, as Markdown for Airflow's Required Actions.

The buttons are below the page, so it is short: a person should see what is asked, and answer, without having
to scroll past hundreds of rows. Names and other text from outside are shown as plain text: no markup, no
links.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from rich.cells import cell_len, set_cell_size

from tavus_provider.planning.plan import Plan, PlanRow
from tavus_provider.rendering.labels import rule_text
from tavus_provider.rendering.tables import format_days, format_last_use, format_name
from tavus_provider.retention.policy import Policy
from tavus_provider.sanitize import escape_line

MAX_ROWS: Final = 50
"""Above this number of replicas, the page has counts and a sample of the rows instead of all rows."""

MAX_SAMPLE: Final = 20
"""How many of the oldest and how many of the newest replicas are in the sample."""

MAX_NAMED: Final = 8
"""How many rules, users, patterns or prefixes are named in one list; the others are counted."""

_LINK: Final = re.compile(r"(?<=http)(?=s?://)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)
_WORD_JOINER: Final = "\u2060"
_PREFIX: Final = re.compile(r"[^\W\d_]+[-_ .:/]*")
"""The first word of a name, with what separates it from the next one."""

_SAMPLE_NAME: Final = 22
"""Characters of a name in the sample, whose two halves must fit beside each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """
    What the page says about the run that asks.

    :param deadline: until when an answer counts; aware
    :param triggered_by: the user who triggered the run, if Airflow knows it
    :param is_manual: whether a person or a program triggered the run, not a schedule
    :param approvers: ids of the users who may answer; empty if every user may whom Airflow lets
    :param must_differ: whether who triggered the run may not approve it
    :param all_rows: URL of the page with all replicas, if there is one
    """

    deadline: datetime
    triggered_by: str | None = None
    is_manual: bool = True
    approvers: Sequence[str] = ()
    must_differ: bool = False
    all_rows: str | None = None

    @property
    def until(self) -> str:
        """The deadline as text, to the minute."""
        return self.deadline.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")

    @property
    def people(self) -> str:
        """Who triggered the run, and who may answer, as Markdown."""
        if self.triggered_by is not None:
            trigger = plain_text(self.triggered_by)
        else:
            trigger = "an unknown user" if self.is_manual else "the schedule"
        who = _join(self.approvers) if self.approvers else "everybody whom Airflow lets answer this task"
        if self.must_differ and self.triggered_by is not None:
            who += f", but not {plain_text(self.triggered_by)}"
        return f"**Triggered by** {trigger}. **May answer:** {who}."


def approval_subject(plan: Plan) -> str:
    """Return the headline of the page."""
    count = len(plan["delete"])
    return f"Delete {count:,} Tavus replica{'s' * (count != 1)} permanently?"


def approval_page(plan: Plan, inquiry: Inquiry) -> str:
    """
    Return the Markdown page that shows a plan for permanent deletes.

    :raises TavusValidationError: if the plan has no valid policy
    """
    rows, policy = plan["delete"], Policy.parse(plan["policy"])
    return "\n".join(
        [
            f"**{_how_many(plan)}** of {plain_text(plan['origin'])} (connection "
            f"{plain_text(plan['tavus_conn_id'])}), **with the training footage. This cannot be undone.** "
            "Conversations and videos are not deleted.",
            "",
            *_rules(rows, policy),
            *_narrowed(policy),
            f"- {inquiry.people}",
            f"- **Answer until {inquiry.until}**, or nothing is deleted. "
            "Replicas that change before are kept.",
            "",
            *(_list(rows, made_at=datetime.fromisoformat(plan["made_at"])) if len(rows) <= MAX_ROWS else ()),
            *(_sample(rows) if len(rows) > MAX_ROWS else ()),
            "",
            f"{_where_all_rows_are(inquiry)}Digest of this plan: `{plan['digest']}`",
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


# -- why, who, until when


def _rules(rows: Sequence[PlanRow], policy: Policy) -> Iterator[str]:
    """Yield a line for each rule of the plan: what it asks for and, if rows are left out, its counts."""
    by_rule: dict[str, list[PlanRow]] = {}
    for row in rows:
        by_rule.setdefault(_rule(row), []).append(row)
    largest = sorted(by_rule.items(), key=lambda item: -len(item[1]))
    for rule, own in largest[:MAX_NAMED]:
        counts = ""
        if len(rows) > MAX_ROWS:
            counts = f". {_counts(own)}"
        elif len(by_rule) > 1:
            counts = f": {len(own):,}"
        source = "rule " * (own[0]["source"] == "rule") + plain_text(rule)
        asked = plain_text(_requirement(own[0], policy))
        yield f"- **Policy {plain_text(policy.name)}, {source}:** {asked}{counts}"
    if others := largest[MAX_NAMED:]:
        yield f"- {len(others):,} other rules: {sum(len(own) for _, own in others):,} replicas"


def _requirement(row: PlanRow, policy: Policy) -> str:
    """Return what the rule of a row asks for."""
    if row["source"] == "soft_deleted":
        return f"soft-deleted by this package at least {policy.hard_delete_after} ago"
    if row["source"] == "quota":
        return "" if policy.quota is None else policy.quota.requirement
    return next((rule.requirement for rule in policy.expire if rule.rule == row["rule"]), "chosen by hand")


def _counts(rows: Sequence[PlanRow]) -> str:
    """Return how many replicas, how old, and the most frequent first words of their names."""
    ages = [row["age_days"] for row in rows if row["age_days"] is not None]
    prefixes = Counter(_prefix(row["replica_name"]) for row in rows)
    named = [(prefix, count) for prefix, count in prefixes.most_common() if prefix and count > 1][:MAX_NAMED]
    texts = [f"{plain_text(prefix)}&#42; {count:,}" for prefix, count in named]
    if others := len(rows) - sum(count for _, count in named):
        texts.append(f"other names {others:,}")
    span = f", {min(ages):,} to {max(ages):,} days old" if ages else ""
    return f"{len(rows):,} replicas{span}: {', '.join(texts)}"


def _prefix(name: str | None) -> str:
    match = _PREFIX.match(name or "")
    return match[0][:30] if match else ""


def _narrowed(policy: Policy) -> Iterator[str]:
    """Yield a line about what was narrowed for this run, if anything was."""
    narrow, age, fields = policy.narrow, policy.narrow.older_than, policy.narrowing_fields()
    parts = list[str]()
    if "include" in fields:
        parts.append(f"only names {_join(narrow.include)}")
    if "exclude" in fields:
        parts.append(f"except names {_join(narrow.exclude)}")
    if age is not None and "older_than" in fields:
        parts.append(f"older than {age.format(age.delta)}")
    if parts:
        yield f"- **Narrowed for this run:** {'; '.join(parts)}"


def _join(texts: Iterable[str]) -> str:
    texts = tuple(texts)
    more = f" and {len(texts) - MAX_NAMED:,} more" if len(texts) > MAX_NAMED else ""
    return ", ".join(plain_text(text) for text in texts[:MAX_NAMED]) + more


# -- rows


def _list(rows: Sequence[PlanRow], *, made_at: datetime) -> list[str]:
    """
    Return the rows as a table, without the columns that say nothing new.

    Each line of a table is high in Airflow, and the fewer columns, the fewer cells have a second line.
    """
    columns: dict[str, Callable[[PlanRow], str]] = {
        "replica": lambda row: row["replica_id"],
        "name": lambda row: format_name(row["replica_name"]),
    }
    if any(f"{row['age_days']} day" not in row["reason"] for row in rows):
        columns["age"] = lambda row: format_days(row["age_days"])
    if any(row["last_used_at"] for row in rows):
        columns["last used"] = lambda row: _last_used(row, made_at=made_at)
    if len({_rule(row) for row in rows}) > 1:
        columns["rule"] = _rule
    columns["reason"] = lambda row: row["reason"]
    cells = ([plain_text(cell(row)) for cell in columns.values()] for row in rows)
    return [_line(list(columns)), _line(["---"] * len(columns)), *map(_line, cells)]


def _sample(rows: Sequence[PlanRow]) -> list[str]:
    """
    Return the oldest and the newest replicas beside each other.

    It is a block of code, because Airflow gives each row of a table the height of two lines. Markdown has no
    effect in it, and no line begins with text from outside that could end it.
    """
    # What Tavus no longer lists has no date; it was soft-deleted long ago.
    by_age = sorted(rows, key=lambda row: row["created_at"] or "")
    halves = by_age[:MAX_SAMPLE], by_age[::-1][:MAX_SAMPLE]
    longest = max(len(row["replica_id"]) for half in halves for row in half)
    titles = (f"the {MAX_SAMPLE} oldest of {len(rows):,}", f"the {MAX_SAMPLE} newest")
    texts = [
        [title, *(_sample_row(row, longest) for row in half)]
        for title, half in zip(titles, halves, strict=True)
    ]
    width = max(map(cell_len, texts[0])) + 3
    return [
        "```text",
        *(f"{set_cell_size(left, width)}{right}" for left, right in zip(*texts, strict=True)),
        "```",
    ]


def _sample_row(row: PlanRow, longest: int) -> str:
    name = format_name(row["replica_name"])
    if cell_len(name) > _SAMPLE_NAME:
        name = set_cell_size(name, _SAMPLE_NAME - 1).rstrip() + "…"
    age = "?" if row["age_days"] is None else f"{row['age_days']}d"
    return f"{row['replica_id']:{longest}}  {set_cell_size(name, _SAMPLE_NAME)} {age:>5}"


def _where_all_rows_are(inquiry: Inquiry) -> str:
    return f"[All replicas, with reasons](<{inquiry.all_rows}>). " if inquiry.all_rows else ""


def _last_used(row: PlanRow, *, made_at: datetime) -> str:
    last_used_at = row["last_used_at"]
    return format_last_use(datetime.fromisoformat(last_used_at) if last_used_at else None, now=made_at)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(row: PlanRow) -> str:
    # In parentheses, because a rule can have the same name as the setting.
    return rule_text(row["rule"], source=row["source"])
