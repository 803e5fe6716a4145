from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta

import pytest

from tavus_provider.models import Replica
from tavus_provider.planning.plan import make_plan
from tavus_provider.rendering.tables import (
    MAX_ROWS,
    approval_page,
    approval_subject,
    decision_sentence,
    decision_table,
    plain,
    report_sentence,
    report_table,
)
from tavus_provider.retention.context import Use
from tavus_provider.retention.engine import RetentionPolicy

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
POLICY = RetentionPolicy.read({"name": "stale", "expire": [{"rule": "old", "older_than": "90d"}]})

HOSTILE = [
    pytest.param("**bold** __also__ _so_ `code` ~~x~~ # h", id="markdown"),
    pytest.param("[click](javascript:alert(1)) ![i](https://evil.test/x.png) https://evil.test", id="links"),
    pytest.param("<img src=x onerror=alert(1)>&amp;<!-- -->", id="html"),
    pytest.param("a | b |\n|---|", id="table"),
    pytest.param("ok\n[2026-01-01] INFO - deleted 0\r\n\u2028\u2029\x0b", id="lines"),
    pytest.param("\x1b[2J\x1b[31m\x00\x07", id="escapes"),
    pytest.param("\u202egpj.exe\u2066\u200f", id="right-to-left"),
    pytest.param("{{ 7*7 }}{% raw %}${x}%(x)s[bold]x[/bold]:smile:", id="templates"),
    pytest.param("::group::hidden", id="log-folds"),
    pytest.param("n" * 2**20, id="a-megabyte"),
    pytest.param("山" * 500, id="wide-letters"),
    pytest.param("", id="empty"),
    pytest.param("\ud83d", id="half-a-pair"),
]


def replica(replica_id, name="anna", days=200):
    created_at = NOW - timedelta(days=days)
    return Replica(replica_id, name, "completed", "user", None, created_at, created_at)


def decide(*replicas):
    return POLICY.decide(replicas, Use((), (), ()), now=NOW)


def planned(*replicas):
    return make_plan(
        decide(*replicas), POLICY, now=NOW, hard=True, tavus_conn_id="eu", origin="https://tavusapi.com"
    )


def reported(plan, **outcomes):
    items = [
        {
            "replica_id": row["replica_id"],
            "outcome": outcomes.get(row["replica_id"], "deleted"),
            "detail": "said so",
        }
        for row in plan["delete"]
    ]
    counts = {"deleted": sum(item["outcome"] == "deleted" for item in items)}
    return {
        "plan_digest": plan["digest"],
        "hard": True,
        "dry_run": False,
        "counts": counts | dict.fromkeys(outcomes.values(), 1),
        "items": items,
    }


# -- names


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_one_line_of_plain_text_on_the_approval_page(name):
    tame = approval_page(planned(replica("r1")))
    page = approval_page(planned(replica("r1", name)))
    assert len(page.splitlines()) == len(tame.splitlines())
    (row,) = [line for line in page.splitlines() if line.startswith("| r1 ")]
    assert row.count("|") == 7  # the cells of the table and no more
    shown = row.split("|")[2].strip()
    assert re.fullmatch(r"([A-Za-z0-9 ,-]|&#[0-9]+;)*", shown)
    assert html.unescape(shown).replace("\u2060", "").isprintable()
    assert len(html.unescape(shown)) <= 256


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_on_one_line_of_the_log_and_cannot_fold_it(name):
    plan = planned(replica("r1", name))
    for lines in (decision_table(decide(replica("r1", name)), now=NOW), report_table(reported(plan), plan)):
        assert len(lines) == 3  # head, rule, replica
        assert all(line.isprintable() for line in lines)
        assert "::" not in lines[2]
        assert "r1" in lines[2]
        assert "anna" not in lines[2]


def test_what_looks_like_markup_of_the_table_is_shown_as_it_is():
    lines = decision_table(decide(replica("r1", "[bold]x[/bold] :smile:")), now=NOW)
    assert "[bold]x[/bold] :smile:" in lines[2]


@pytest.mark.parametrize(
    "text",
    ["https://evil.test/x", "HTTP://evil.test", "www.evil.test", "see Www.evil.test", "a.b+c@evil.test"],
)
def test_no_address_is_left_for_a_page_to_make_a_link_of(text):
    shown = html.unescape(plain(text))
    assert shown.replace("\u2060", "") == text
    # What mdast-util-gfm-autolink-literal looks for, in text whose references are resolved.
    assert re.search(r"(https?://|www(?=\.))[-.\w]+|[-.\w+]+@[-\w]+(\.[-\w]+)+", text, re.IGNORECASE)
    assert not re.search(r"(https?://|www(?=\.))[-.\w]+|[-.\w+]+@[-\w]+(\.[-\w]+)+", shown, re.IGNORECASE)


def test_plain_text_reads_as_what_was_written():
    assert html.unescape(plain("a_b *c* <d> | é")) == "a_b *c* <d> | é"
    assert plain("spring-2024, anna") == "spring-2024, anna"
    assert html.unescape(plain("a\n\u202eb\x1b[2J")) == "a\\n\\u202eb\\x1b[2J"


@pytest.mark.parametrize("mark", list("_*`~#[]()<>&|\\!{}$:/.@+='\""))
def test_no_mark_of_markdown_or_html_is_left_on_a_page(mark):
    assert plain(mark).replace("&#8288;", "") == f"&#{ord(mark)};"


# -- tables


def test_the_table_has_every_replica_with_its_verdict_and_reason_and_what_goes_first():
    lines = decision_table(decide(replica("r1", days=3), replica("r2"), replica("r3", days=-1)), now=NOW)
    assert [line.split()[1] if line.startswith("DELETE") else line for line in lines[2:3]] == ["r2"]
    assert re.fullmatch(r"DELETE\s+r2\s+anna\s+200 d\s+-\s+200 days old, limit is 90d", lines[2])
    assert re.fullmatch(
        r"keep, in doubt\s+r3\s+anna\s+\?\s+-\s+created_at 2026-06-02T12:00:00Z is in the future", lines[3]
    )
    assert re.fullmatch(r"keep\s+r1\s+anna\s+3 d\s+-\s+3 days old, rule 'old' asks for 90d", lines[4])


def test_a_long_table_is_cut_and_what_is_cut_is_counted_by_word():
    rows = [replica(f"r{n:04}", days=200 if n < 150 else 3) for n in range(1_500)]
    lines = decision_table(decide(*rows), now=NOW)
    assert len(lines) == 2 + MAX_ROWS + 1
    assert lines[-1] == "... and 1,300 more: 1,300 not_expired"
    assert decision_table(decide(*rows), now=NOW, max_rows=100)[-1] == (
        "... and 1,400 more: 1,350 not_expired, 50 expired"
    )
    assert "..." not in decision_table(decide(*rows[:MAX_ROWS]), now=NOW)[-1]


def test_the_longest_sentence_of_a_verdict_is_not_wrapped():
    long = {"expire": [{"rule": "n" * 60, "older_than": "90d"}], "scope": {"exclude": ["*" + "x" * 200]}}
    verdicts = RetentionPolicy.read(long).decide(
        [replica("r" + "1" * 63, "山" * 300 + "x" * 200)], Use((), (), ()), now=NOW
    )
    assert len(decision_table(verdicts, now=NOW)) == 3


def test_a_decision_is_said_in_one_sentence_with_all_its_counts():
    assert decision_sentence(decide(replica("r1"), replica("r2", days=3), replica("r3", days=-1))) == (
        "1 of 3 replicas to delete, 1 in doubt and kept, others kept: 1 not_expired"
    )


def test_a_report_shows_what_went_wrong_first_and_counts_what_is_cut():
    plan = planned(*(replica(f"r{n:04}") for n in range(MAX_ROWS + 5)))
    lines = report_table(reported(plan, r0204="unknown"), plan)
    assert lines[2].split()[:2] == ["unknown", "r0204"]
    assert lines[-1] == "... and 5 more"


@pytest.mark.parametrize(
    ("dry_run", "hard", "said"),
    [
        (True, True, "dry run, nothing was sent"),
        (False, True, "hard"),
        (False, False, "soft"),
    ],
)
def test_a_report_is_said_in_one_sentence(dry_run, hard, said):
    report = {
        "dry_run": dry_run,
        "hard": hard,
        "items": [1, 2, 3],
        "counts": {"deleted": 2, "unknown": 1, "failed": 0},
    }
    assert report_sentence(report) == f"3 planned ({said}): 2 deleted, 1 unknown"


# -- the page


def test_the_headline_counts_what_would_be_deleted():
    assert approval_subject(planned(replica("r1"))) == "Delete 1 Tavus replica permanently?"
    assert approval_subject(planned(replica("r1"), replica("r2"))) == "Delete 2 Tavus replicas permanently?"


def test_the_page_says_what_goes_where_under_which_policy_and_with_which_digest():
    plan = planned(replica("r1"), replica("r2", days=3), replica("r3"))
    page = approval_page(plan)
    assert f"`{plan['digest']}`" in page
    first = html.unescape(page.splitlines()[0]).replace("\u2060", "")
    assert first == (
        "**2 of 3 replicas** of https://tavusapi.com (connection eu) would be deleted **permanently**, "
        "under the policy stale."
    )
    assert "| r1 | anna | 200 d | &#45; | old |".replace("&#45;", "-") in page
    assert html.unescape(page).count("200 days old, limit is 90d") == 2
    assert "r2" not in page
    assert "2026-06-02T12:00:00Z" in html.unescape(page)


def test_the_page_says_what_each_answer_does_and_that_nothing_comes_back():
    page = approval_page(planned(replica("r1")))
    assert "This cannot be undone" in page
    assert "**Approve**: before each delete the account is read again; only what is listed below" in page
    assert "**Reject**: nothing is deleted, and the run ends." in page
    assert "nothing is deleted, and the run fails." in page


def test_a_long_page_says_what_the_answers_do_and_sums_up_before_its_list_begins():
    plan = planned(*(replica(f"r{n:04}", days=100 + n) for n in range(300)))
    page = approval_page(plan)
    head = page[: page.index("| r0")]
    assert "| old | 300 | 100 d | 399 d |" in head
    for said in ("**Approve**", "**Reject**", "**No answer**", "This cannot be undone", plan["digest"]):
        assert said in head
    assert len(head.splitlines()) < 25
    assert "one by one" not in approval_page(planned(replica("r1"), replica("r2"), replica("r3")))


def test_a_rule_named_like_markup_is_plain_text_in_the_summary_too():
    hostile = {"expire": [{"rule": "<b>a|b</b>", "older_than": "90d"}]}
    policy = RetentionPolicy.read(hostile)
    decision = policy.decide([replica(f"r{n:04}") for n in range(20)], Use((), (), ()), now=NOW)
    page = approval_page(
        make_plan(decision, policy, now=NOW, hard=True, tavus_conn_id="eu", origin="https://tavusapi.com")
    )
    assert "<" not in page
    assert html.unescape(page).count("| <b>a|b</b> |") == 21


def test_the_page_lists_every_replica_however_many():
    plan = planned(*(replica(f"r{n:04}") for n in range(1_000)))
    assert len(re.findall(r"^\| r[0-9]{4} \|", approval_page(plan), re.MULTILINE)) == 1_000


def test_a_replica_by_hand_is_not_said_to_be_one_of_one():
    assert approval_page(planned(replica("r1"))).startswith("**1 replica** of ")
    two = planned(replica("r1"), replica("r2"))
    assert approval_page(two).startswith("**2 of 2 replicas** of ")
    assert approval_page({**two, "listed": 1}).startswith(
        "**2 of 1 replicas** of "
    )  # one is not listed any more


def test_what_is_beyond_4000_rows_is_counted_by_rule_and_said_to_be_approved_too():
    plan = planned(*(replica(f"r{n:04}") for n in range(4_321)))
    page = html.unescape(approval_page(plan))
    assert len(re.findall(r"^\| r[0-9]{4} \|", page, re.MULTILINE)) == 4_000
    assert "**And 321 more (321 under old), which are approved too.**" in page
    assert "**4,321 of 4,321 replicas**" in page
