from __future__ import annotations

import io
import re

import pytest
from rendering.samples import HOSTILE_NAMES, NOW, decide, make, replica, report_on
from rich.console import Console

from tavus_provider.rendering import tables
from tavus_provider.rendering.tables import (
    MAX_ROWS,
    decision_lines,
    decision_sentence,
    decision_table,
    due_lines,
    report_lines,
    report_sentence,
    report_table,
)
from tavus_provider.retention.policy import Policy


def printed(table, width=200):
    """Return the lines of a table as a terminal of this width shows them, without colours."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]


# -- names from outside


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_name_stays_on_its_line_of_the_log(name):
    plan = make(replica("r1", name))
    for lines in (
        decision_lines(decide(replica("r1", name)), now=NOW),
        report_lines(report_on(plan), plan),
    ):
        assert len(lines) == 3  # head, rule, replica
        assert all(line.isprintable() for line in lines)
        assert "::" not in lines[2]
        assert "r1" in lines[2]
        assert "anna" not in lines[2]


def test_rich_markup_in_a_name_is_not_interpreted():
    lines = decision_lines(decide(replica("r1", "[bold]x[/bold] :smile:")), now=NOW)
    assert "[bold]x[/bold] :smile:" in lines[2]


# -- decisions


def test_decision_lines_have_verdict_and_reason_with_deletes_first():
    lines = decision_lines(decide(replica("r1", days=3), replica("r2"), replica("r3", days=-1)), now=NOW)
    assert re.fullmatch(r"DELETE\s+r2\s+anna\s+200 days old, limit is 90d\s+200 d\s+-", lines[2])
    assert re.fullmatch(
        r"keep, undetermined\s+r3\s+anna\s+created_at 2026-06-02T12:00:00Z is in the future\s+\?\s+-",
        lines[3],
    )
    assert re.fullmatch(
        r"keep, not expired\s+r1\s+anna\s+3 days old, rule 'old' asks for 90d\s+3 d\s+-", lines[4]
    )


def test_log_and_terminal_show_the_same_rows():
    decision = decide(replica("r1", days=3), replica("r2"), replica("r3", days=-1))
    assert [line[1:] for line in printed(decision_table(decision, now=NOW))][2:] == decision_lines(
        decision, now=NOW
    )[2:]
    plan = make(replica("r1"), replica("r2"))
    report = report_on(plan, r2="unknown")
    assert [line[1:] for line in printed(report_table(report, plan))][2:] == report_lines(report, plan)[2:]


def test_narrow_terminal_folds_names_and_reasons_only():
    lines = printed(decision_table(decide(replica("r1", "a" * 40)), now=NOW), width=60)
    assert len(lines) > 3
    assert re.match(r" DELETE +r1 ", lines[2])
    assert "200 d " in lines[2]


def test_due_lines_have_a_table_per_status_with_the_reason_third():
    lines = due_lines(decide(replica("r1", days=3), replica("r2"), replica("r3", days=-1)), now=NOW)
    assert re.fullmatch(r"replica\s+name\s+reason\s+age\s+last used", lines[1])
    assert re.fullmatch(r"r2\s+anna\s+200 days old, limit is 90d\s+200 d\s+-", lines[3])
    assert re.fullmatch(r"r3\s+anna\s+created_at 2026-06-02T12:00:00Z is in the future\s+\?\s+-", lines[7])
    assert [lines[0], lines[4]] == ["1 to delete:", "1 undetermined, and therefore kept:"]
    assert len(lines) == 8


def test_scheduled_replicas_have_a_table():
    policy = Policy.parse({"name": "x", "expire": [{"rule": "old", "older_than": "90d", "grace": "7d"}]})
    lines = due_lines(decide(replica("r1"), policy=policy), now=NOW)
    assert lines[0] == "1 scheduled for a later delete:"
    assert re.match(r"r1\s+anna\s+200 days old", lines[3])
    assert due_lines(decide(replica("r1", days=3)), now=NOW) == []


def test_long_table_is_cut_and_the_rest_is_counted():
    rows = [replica(f"r{n:04}", days=200) for n in range(1_500)]
    assert due_lines(decide(*rows), now=NOW)[-1] == "... and 1,300 more"
    assert len(due_lines(decide(*rows), now=NOW)) == 3 + MAX_ROWS + 1
    assert len(due_lines(decide(*rows[:MAX_ROWS]), now=NOW)) == 3 + MAX_ROWS
    assert decision_table(decide(*rows), now=NOW).row_count == 1_500


def test_longest_verdict_is_not_wrapped_in_the_log():
    policy = Policy.parse(
        {"expire": [{"rule": "n" * 60, "older_than": "90d"}], "scope": {"exclude": ["*" + "x" * 200]}}
    )
    decision = decide(replica("r" + "1" * 63, "山" * 300 + "x" * 200), policy=policy)
    assert len(decision_lines(decision, now=NOW)) == 3


def test_decision_sentence_has_all_counts():
    assert decision_sentence(decide(replica("r1"), replica("r2", days=3), replica("r3", days=-1))) == (
        "1 of 3 replicas to delete, 1 undetermined and kept, others kept: 1 not_expired"
    )


# -- reports


@pytest.mark.parametrize("outcome", ["failed", "unknown", "not_attempted"])
def test_report_shows_unfinished_replicas_first_and_counts_the_rest(outcome):
    plan = make(*(replica(f"r{n:04}") for n in range(MAX_ROWS + 5)))
    lines = report_lines(report_on(plan, r0204=outcome), plan)
    assert re.match(rf"{outcome.replace('_', ' ')} +r0204 +anna +HTTP 200$", lines[2])
    assert lines[-1] == "... and 5 more"


@pytest.mark.parametrize(
    ("dry_run", "hard", "text"),
    [
        (True, True, "dry run, nothing was sent"),
        (False, True, "hard"),
        (False, False, "soft"),
    ],
)
def test_report_sentence_has_kind_and_counts(dry_run, hard, text):
    report = {
        "dry_run": dry_run,
        "hard": hard,
        "items": [1, 2, 3],
        "counts": {"deleted": 1, "already_gone": 1, "unknown": 1, "failed": 0},
    }
    assert report_sentence(report) == f"3 planned ({text}): 1 deleted, 1 already gone, 1 unknown"


def test_new_report_column_appears_in_log_and_terminal(monkeypatch):
    """A column is defined in one place."""
    columns = tables._report_columns
    monkeypatch.setattr(
        tables,
        "_report_columns",
        lambda plan: (*columns(plan), tables.Column("rule", lambda item: "stale")),
    )
    plan = make(replica("r1"))
    for lines in (report_lines(report_on(plan), plan), printed(report_table(report_on(plan), plan))):
        assert re.search(r"\brule$", lines[0])
        assert re.search(r"\bstale$", lines[2])
