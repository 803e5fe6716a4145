"""
Plans and reports of erasures as text for people: the approval page, and lines for the log.

Keys and other text from outside are shown as plain text: no markup, no links.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Final, TypeVar

from tavus_provider.keys import Kind
from tavus_provider.outcomes import HELD
from tavus_provider.planning.erasure import ErasurePlan, ErasureRow
from tavus_provider.planning.erasure_report import ErasureReport, State, open_sentences
from tavus_provider.rendering.approval import Inquiry, plain_text
from tavus_provider.rendering.labels import OUTCOMES
from tavus_provider.sanitize import escape_line

MAX_ROWS: Final = 2_000
"""Rows of the approval page for each kind. Longer pages are not read, and a database should not hold them."""

MAX_LOGGED: Final = 200
"""Objects that the log names one by one."""

GROUNDS: Final[Mapping[str, str]] = {
    "consent_withdrawn": "consent was withdrawn (GDPR Art. 17(1)(b))",
    "request": "the person asked for it (GDPR Art. 17(1)(c))",
    "purpose_met": "the data are no longer needed (GDPR Art. 17(1)(a))",
    "unlawful": "the data were processed unlawfully (GDPR Art. 17(1)(d))",
    "ccpa": "request under the CCPA, section 1798.105",
    "bipa": "request or end of purpose under the BIPA, section 15(a)",
}
"""Grounds in words, for the approval page and the certificate."""

STATES: Final[Mapping[str, str]] = {
    State.COMPLETE: "complete",
    State.PARTLY_REFUSED: "partly refused: some objects are under legal hold",
    State.INCOMPLETE: "incomplete",
}


def describe_count(kind: str, count: int) -> str:
    """Return a number of objects of one kind in words."""
    return f"{count:,} {kind}{'s' * (count != 1)}"


def describe_counts(counts: Mapping[str, int]) -> str:
    """Return the number of objects of each kind in words; kinds without objects are left out."""
    named = [describe_count(kind, count) for kind in Kind if (count := counts.get(kind, 0))]
    return ", ".join(named) or "nothing"


def erasure_subject(plan: ErasurePlan) -> str:
    """Return the headline of the approval page."""
    return f"Erase a person from Tavus ({plan['request']})? {describe_counts(plan['counts'])}"


def erasure_page(plan: ErasurePlan, inquiry: Inquiry) -> str:
    """Return the Markdown page that shows a plan of an erasure."""
    days = (date.fromisoformat(plan["due_on"]) - datetime.fromisoformat(plan["made_at"]).date()).days
    left = f"{days} days left" if days >= 0 else f"{-days} days overdue"
    rows = {kind: [row for row in plan["delete"] if row["kind"] == kind] for kind in Kind}
    return "\n".join(
        [
            f"**{describe_counts(plan['counts'])}** of {plain_text(plan['origin'])} (connection "
            f"{plain_text(plan['tavus_conn_id'])}) would be deleted **permanently**.",
            "",
            f"- Request: **{plain_text(plan['request'])}**",
            f"- Received on {plan['received_on']}, due on **{plan['due_on']}** ({left})",
            f"- Ground: {plain_text(GROUNDS.get(plan['ground'], plan['ground']))}",
            f"- Kinds: {', '.join(f'{kind}s' for kind in plan['kinds'])}",
            "",
            *_what_cannot_be_undone(plan, rows),
            "",
            "- **Approve**: exactly the objects below are deleted, except those that come under legal hold "
            "until then. Afterwards the account is read again.",
            "- **Reject**: nothing is deleted, and the run ends. The request stays open.",
            f"- **No answer until {inquiry.until}**: nothing is deleted, and the run fails.",
            f"- {inquiry.people}",
            "",
            f"Digest of this plan: `{plan['digest']}`",
            "",
            *_what_stays(plan),
            *(line for kind in Kind if rows[kind] for line in _list(kind, rows[kind])),
            *_section(
                "Out of reach: ask there, if it applies",
                [f"{plain_text(row['what'])}: {plain_text(row['ask'])}" for row in plan["beyond_reach"]],
            ),
        ]
    )


def erasure_lines(plan: ErasurePlan) -> list[str]:
    """Return the lines of the log about a plan."""
    return [
        *_named(plan["delete"], lambda row: f"DELETE {row['key']}: {row['reason']}"),
        *_named(plan["held"], lambda row: f"held   {row['key']}: {row['reason']}"),
        *_named(plan["gone"], lambda row: f"gone   {row['key']}: {row['reason']}"),
        *_named(plan["undetermined"], lambda row: f"undetermined {escape_line(row['row'])}: {row['reason']}"),
        *_named(plan["left"], lambda row: f"left   {row['key']}: {row['reason']}"),
        *_named(
            plan["references"],
            lambda row: f"persona {escape_line(row['persona_id'])} names replica {row['replica_id']}",
        ),
    ]


def erasure_sentence(plan: ErasurePlan) -> str:
    """Return a plan in one sentence."""
    parts = [f"{describe_counts(plan['counts'])} to delete permanently"]
    parts += [f"{len(plan['end']):,} active to end first"] if plan["end"] else []
    parts += [f"{len(plan['held']):,} held"] if plan["held"] else []
    parts += [f"{len(plan['gone']):,} gone already"] if plan["gone"] else []
    parts += [f"{plan['undetermined_count']:,} undetermined"] if plan["undetermined_count"] else []
    return f"Erasure {plan['request']}, due on {plan['due_on']}: {', '.join(parts)}"


def erasure_report_lines(report: ErasureReport) -> list[str]:
    """Return the lines of the log about a report."""
    lines = _named(report["items"], lambda item: f"{item['outcome']}: {item['key']} ({item['detail']})")
    return [*lines, *(f"open: {sentence}" for sentence in open_sentences(report["open"]))]


def erasure_report_sentence(report: ErasureReport) -> str:
    """Return a report in one sentence."""
    labels = {outcome.value: label.text for outcome, label in OUTCOMES.items()} | {HELD: "held"}
    counts = ", ".join(f"{count:,} {labels[name]}" for name, count in report["counts"].items() if count)
    return f"Erasure {report['request']}: {STATES[report['state']]} ({counts or 'nothing to delete'})"


_Row = TypeVar("_Row", bound=Mapping[str, object])


def _named(rows: Sequence[_Row], line: Callable[[_Row], str]) -> list[str]:
    lines = [line(row) for row in rows[:MAX_LOGGED]]
    if len(rows) > MAX_LOGGED:
        lines.append(f"... and {len(rows) - MAX_LOGGED:,} more")
    return lines


def _what_cannot_be_undone(plan: ErasurePlan, rows: Mapping[Kind, Sequence[ErasureRow]]) -> Iterable[str]:
    yield "**This cannot be undone.**"
    if rows[Kind.REPLICA]:
        yield (
            "Each replica is a person's likeness; its training footage is deleted with it, and nothing new "
            "can be made with it."
        )
    if conversations := rows[Kind.CONVERSATION]:
        count = describe_count("conversation", len(conversations))
        hold = "holds" if len(conversations) == 1 else "hold"
        yield (
            f"**{count} also {hold} what other people said**, with transcript and analysis. These are "
            "deleted for all of them."
        )
    if plan["end"]:
        count = describe_count("active conversation", len(plan["end"]))
        verb = "is" if len(plan["end"]) == 1 else "are"
        yield f"{count} {verb} ended first: participants are disconnected."


def _what_stays(plan: ErasurePlan) -> Iterable[str]:
    sections: list[tuple[str, list[str]]] = [
        (
            "Under legal hold, so not deleted",
            [f"{plain_text(row['key'])}: {plain_text(row['reason'])}" for row in plan["held"]],
        ),
        (
            "Not determined, so not deleted",
            [f"{plain_text(row['row'])}: {plain_text(row['reason'])}" for row in plan["undetermined"]],
        ),
        (
            "Of a kind that the request does not name, so not deleted",
            [plain_text(row["key"]) for row in plan["left"]],
        ),
        (
            "Personas that will name a replica that no longer exists",
            [f"{plain_text(row['persona_id'])}: replica {row['replica_id']}" for row in plan["references"]],
        ),
    ]
    for title, lines in sections:
        yield from _section(title, lines)


def _section(title: str, lines: Sequence[str]) -> Iterable[str]:
    if lines:
        yield f"**{title}:**"
        yield ""
        yield from (f"- {line}" for line in lines[:50])
        if len(lines) > 50:
            yield f"- and {len(lines) - 50:,} more"
        yield ""


def _list(kind: Kind, rows: Sequence[ErasureRow]) -> Iterable[str]:
    yield f"**{kind.value.capitalize()}s to delete ({len(rows):,}):**"
    yield ""
    yield "| object | created | reason |"
    yield "|---|---|---|"
    for row in rows[:MAX_ROWS]:
        created = (row["created_at"] or "unknown")[:10]
        yield f"| {plain_text(row['key'])} | {plain_text(created)} | {plain_text(row['reason'])} |"
    yield ""
    if (more := len(rows) - MAX_ROWS) > 0:
        yield (
            f"**And {more:,} more, which are approved too.** They are in the plan itself, which is stored "
            "next to the ledger under the digest above."
        )
        yield ""
