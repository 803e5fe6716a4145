from __future__ import annotations

import html
import re

import pytest
from rendering.samples import HOSTILE_NAMES, make, replica

from tavus_provider.rendering.approval import approval_page, approval_subject, plain_text
from tavus_provider.retention.policy import Policy

SOFT_DELETED = {"source": "soft_deleted", "rule": None}

# What mdast-util-gfm-autolink-literal, the parser of Airflow's UI, makes links of.
AUTOLINK = re.compile(r"(https?://|www(?=\.))[-.\w]+|[-.\w+]+@[-\w]+(\.[-\w]+)+", re.IGNORECASE)


# -- text from outside


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_name_is_one_cell_of_plain_text(name):
    harmless = approval_page(make(replica("r1")))
    page = approval_page(make(replica("r1", name)))
    assert len(page.splitlines()) == len(harmless.splitlines())
    (row,) = [line for line in page.splitlines() if line.startswith("| r1 ")]
    assert row.count("|") == 7  # the cells of the table and no others
    cell = row.split("|")[2].strip()
    assert re.fullmatch(r"([A-Za-z0-9 ,-]|&#[0-9]+;)*", cell)
    assert html.unescape(cell).replace("\u2060", "").isprintable()
    assert len(html.unescape(cell)) <= 256


@pytest.mark.parametrize(
    "text",
    ["https://evil.test/x", "HTTP://evil.test", "www.evil.test", "see Www.evil.test", "a.b+c@evil.test"],
)
def test_addresses_do_not_become_links(text):
    shown = html.unescape(plain_text(text))
    assert shown.replace("\u2060", "") == text
    assert AUTOLINK.search(text)
    assert not AUTOLINK.search(shown)


def test_plain_text_reads_as_it_was_written():
    assert html.unescape(plain_text("a_b *c* <d> | é")) == "a_b *c* <d> | é"
    assert plain_text("spring-2024, anna") == "spring-2024, anna"
    assert html.unescape(plain_text("a\n\u202eb\x1b[2J")) == "a\\n\\u202eb\\x1b[2J"


@pytest.mark.parametrize("mark", list("_*`~#[]()<>&|\\!{}$:/.@+='\""))
def test_plain_text_escapes_markdown_and_html(mark):
    assert plain_text(mark).replace("&#8288;", "") == f"&#{ord(mark)};"


def test_hostile_rule_name_is_plain_text_in_summary_and_list():
    policy = Policy.parse({"expire": [{"rule": "<b>a|b</b>", "older_than": "90d"}]})
    page = approval_page(make(*(replica(f"r{n:04}") for n in range(20)), policy=policy))
    assert "<" not in page
    assert html.unescape(page).count("| <b>a|b</b> |") == 21


# -- content


def test_soft_deleted_row_is_told_apart_from_a_rule_of_that_name():
    policy = Policy.parse({"expire": [{"rule": "hard_delete_after", "older_than": "90d"}]})
    plan = make(replica("r1"), replica("r2"), policy=policy)
    first, second = plan["delete"]
    page = html.unescape(approval_page({**plan, "delete": [first, second | SOFT_DELETED]}))
    assert "| hard_delete_after | 200 days old" in page
    assert "| (hard_delete_after) | 200 days old" in page


def test_subject_counts_the_replicas():
    assert approval_subject(make(replica("r1"))) == "Delete 1 Tavus replica permanently?"
    assert approval_subject(make(replica("r1"), replica("r2"))) == "Delete 2 Tavus replicas permanently?"


def test_page_has_account_policy_digest_and_planned_replicas():
    plan = make(replica("r1"), replica("r2", days=3), replica("r3"))
    page = approval_page(plan)
    assert f"`{plan['digest']}`" in page
    first = html.unescape(page.splitlines()[0]).replace("\u2060", "")
    assert first == (
        "**2 of 3 replicas** of https://tavusapi.com (connection eu) would be deleted **permanently**, "
        "under the policy stale."
    )
    assert "| r1 | anna | 200 d | - | old |" in page
    assert html.unescape(page).count("200 days old, limit is 90d") == 2
    assert "r2" not in page
    assert "2026-06-02T12:00:00Z" in html.unescape(page)


def test_page_explains_each_answer_and_that_it_cannot_be_undone():
    page = approval_page(make(replica("r1")))
    assert "This cannot be undone" in page
    assert (
        "**Approve**: the account is read again, and only replicas that are listed below and still match "
        "the policy are deleted." in page
    )
    assert "**Reject**: nothing is deleted, and the run ends." in page
    assert re.search(r"\*\*No answer\*\* until .*: nothing is deleted, and the run fails\.", page)


def test_long_page_has_answers_and_summary_before_the_list():
    plan = make(*(replica(f"r{n:04}", days=100 + n) for n in range(300)))
    page = approval_page(plan)
    head = page[: page.index("| r0")]
    assert "| old | 300 | 100 d | 399 d |" in head
    for text in ("**Approve**", "**Reject**", "**No answer**", "This cannot be undone", plan["digest"]):
        assert text in head
    assert len(head.splitlines()) < 25
    assert "one by one" not in approval_page(make(replica("r1"), replica("r2"), replica("r3")))


def test_page_lists_every_replica_of_a_large_plan():
    plan = make(*(replica(f"r{n:04}") for n in range(1_000)))
    assert len(re.findall(r"^\| r[0-9]{4} \|", approval_page(plan), re.MULTILINE)) == 1_000


def test_count_of_listed_replicas_is_omitted_for_a_plan_of_one():
    assert approval_page(make(replica("r1"))).startswith("**1 replica** of ")
    two = make(replica("r1"), replica("r2"))
    assert approval_page(two).startswith("**2 of 2 replicas** of ")
    unlisted = {**two["delete"][1], "source": "soft_deleted", "rule": None, "created_at": None}
    assert approval_page({**two, "listed": 1, "delete": [two["delete"][0], unlisted]}).startswith(
        "**2 of 2 replicas** of "
    )


def test_rows_above_the_maximum_are_counted_by_rule_and_approved_too():
    plan = make(*(replica(f"r{n:04}") for n in range(4_321)))
    page = html.unescape(approval_page(plan))
    assert len(re.findall(r"^\| r[0-9]{4} \|", page, re.MULTILINE)) == 4_000
    assert "**And 321 more (321 under old), which are approved too.**" in page
    assert "**4,321 of 4,321 replicas**" in page
