from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest
from rendering.samples import HOSTILE_NAMES, NOW, POLICY, make, replica

from tavus_provider.rendering.approval import Inquiry, approval_page, approval_subject, plain_text
from tavus_provider.retention.policy import Policy

SOFT_DELETED = {"source": "soft_deleted", "rule": None}

# What mdast-util-gfm-autolink-literal, the parser of Airflow's UI, makes links of.
AUTOLINK = re.compile(r"(https?://|www(?=\.))[-.\w]+|[-.\w+]+@[-\w]+(\.[-\w]+)+", re.IGNORECASE)


def inquiry(**more):
    """Return who asked whom, and until when."""
    given = {
        "deadline": NOW + timedelta(hours=23, minutes=59, seconds=59),
        "triggered_by": "maria",
        "approvers": ("alice", "bob"),
        "all_rows": "https://airflow.test/plugin/tavus?run_id=1",
    }
    return Inquiry(**given | more)


def page_of(plan):
    return approval_page(plan, inquiry())


def text_of(plan):
    """Return the page as a person reads it."""
    return html.unescape(page_of(plan)).replace("\u2060", "")


def many(count, name="anna"):
    return [replica(f"r{n:04}", name) for n in range(count)]


# -- text from outside


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_name_is_one_cell_of_plain_text(name):
    harmless = page_of(make(replica("r1")))
    page = page_of(make(replica("r1", name)))
    assert len(page.splitlines()) == len(harmless.splitlines())
    (row,) = [line for line in page.splitlines() if line.startswith("| r1 ")]
    assert row.count("|") == 4  # the cells of the table and no others
    cell = row.split("|")[2].strip()
    assert re.fullmatch(r"([A-Za-z0-9 ,-]|&#[0-9]+;)*", cell)
    assert html.unescape(cell).replace("\u2060", "").isprintable()
    assert len(html.unescape(cell)) <= 256


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, pytest.param("```\n# x", id="fence")])
def test_hostile_name_stays_in_its_line_of_the_sample(name):
    harmless = page_of(make(*many(60)))
    page = page_of(make(*many(60, name)))
    assert len(page.splitlines()) == len(harmless.splitlines())
    before, block, after = page.split("```text\n")[0], *page.split("```text\n")[1].split("\n```\n")
    lines = block.splitlines()
    assert len(lines) == 21
    assert all(re.match("r[0-9]{4}  ", line) and line.isprintable() for line in lines[1:])
    assert re.fullmatch(r"([A-Za-z0-9 ,-]|&#[0-9]+;)*", before.split(" days old: ")[1].splitlines()[0])
    assert after.count("`") == 2  # the digest


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


def test_other_texts_from_outside_are_plain_text():
    hostile = "<b>a|b</b> [x](http://evil.test)"
    policy = Policy.parse(
        {
            "name": hostile,
            "expire": [{"rule": hostile, "older_than": "90d"}, {"rule": "other", "older_than": "80d"}],
            "narrow": {"include": ["*", hostile], "exclude": [hostile]},
        }
    )
    asks = inquiry(triggered_by=hostile, approvers=(hostile,))
    rows = [*many(2), replica("r9999", days=85)]
    page = approval_page(make(*rows, policy=policy), asks)
    assert "<" not in page.replace("](<https://airflow.test/plugin/tavus?run_id=1>)", "")
    assert html.unescape(page).replace("\u2060", "").count(hostile) == 9


# -- content


def test_subject_counts_the_replicas():
    assert approval_subject(make(replica("r1"))) == "Delete 1 Tavus replica permanently?"
    assert approval_subject(make(replica("r1"), replica("r2"))) == "Delete 2 Tavus replicas permanently?"


def test_page_has_account_rule_people_deadline_rows_and_digest():
    plan = make(replica("r1"), replica("r2", days=3), replica("r3"))
    assert text_of(plan) == (
        "**2 of 3 replicas** of https://tavusapi.com (connection eu), **with the training footage. This "
        "cannot be undone.** Conversations and videos are not deleted.\n"
        "\n"
        "- **Policy stale, rule old:** older than 90 days\n"
        "- **Triggered by** maria. **May answer:** alice, bob.\n"
        "- **Answer until 2026-06-02 11:59 UTC**, or nothing is deleted. Replicas that change before are "
        "kept.\n"
        "\n"
        "| replica | name | reason |\n"
        "| --- | --- | --- |\n"
        "| r1 | anna | 200 days old, limit is 90d |\n"
        "| r3 | anna | 200 days old, limit is 90d |\n"
        "\n"
        "[All replicas, with reasons](<https://airflow.test/plugin/tavus?run_id=1>). Digest of this plan: "
        f"`{plan['digest']}`"
    )


@pytest.mark.parametrize(
    ("asks", "expected"),
    [
        pytest.param({}, "**Triggered by** maria. **May answer:** alice, bob.", id="named"),
        pytest.param(
            {"approvers": ()},
            "**Triggered by** maria. **May answer:** everybody whom Airflow lets answer this task.",
            id="everybody",
        ),
        pytest.param(
            {"must_differ": True},
            "**Triggered by** maria. **May answer:** alice, bob, but not maria.",
            id="must-differ",
        ),
        pytest.param(
            {"triggered_by": None, "is_manual": False, "must_differ": True},
            "**Triggered by** the schedule. **May answer:** alice, bob.",
            id="schedule",
        ),
        pytest.param(
            {"triggered_by": None},
            "**Triggered by** an unknown user. **May answer:** alice, bob.",
            id="unknown",
        ),
        pytest.param(
            {"approvers": tuple("abcdefghij")},
            "**Triggered by** maria. **May answer:** a, b, c, d, e, f, g, h and 2 more.",
            id="many",
        ),
    ],
)
def test_page_says_who_triggered_the_run_and_who_may_answer(asks, expected):
    assert f"- {expected}\n" in approval_page(make(replica("r1")), inquiry(**asks))


@pytest.mark.parametrize(
    ("narrow", "expected"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"include": ["*"], "older_than": "90d"}, None, id="no-effect"),
        pytest.param({"include": ["a*", "b*"]}, "only names a*, b*", id="include"),
        pytest.param(
            {"exclude": ["vip_*"], "older_than": "120d"},
            "except names vip_*; older than 120 days",
            id="exclude-and-age",
        ),
    ],
)
def test_page_says_what_was_narrowed(narrow, expected):
    plan = make(replica("r1"), policy=Policy.parse({**POLICY.to_json(), "narrow": narrow}))
    lines = [line for line in text_of(plan).splitlines() if "Narrowed" in line]
    assert lines == ([f"- **Narrowed for this run:** {expected}"] if expected else [])


def test_page_has_the_condition_of_each_rule_and_how_many_it_expires():
    policy = Policy.parse(
        {
            "name": "all",
            "expire": [
                {"rule": "failed", "status": ["error"], "older_than": "14d"},
                {"rule": "stale", "older_than": "1y", "unused_for": "90d", "model_names": ["phoenix-2"]},
                {
                    "rule": "hard_delete_after",
                    "older_than": "2w",
                    "names": {"include": ["a*"], "exclude": ["b"]},
                },
            ],
            "quota": {"above": 2_000, "down_to": 1_500, "older_than": "60d"},
            "hard_delete_after": "30d",
        }
    )
    plan = make(*many(7), policy=Policy.parse({**policy.to_json(), "quota": None}))
    first, *rows = plan["delete"]
    rules = ["failed", "stale", "hard_delete_after", "hard_delete_after", "by hand"]
    rows = [row | {"rule": rule} for row, rule in zip(rows, rules, strict=False)]
    rows += [first | {"replica_id": "r8"} | SOFT_DELETED, first | {"source": "quota", "rule": None}]
    page = text_of(plan | {"policy": policy.to_json(), "delete": rows})
    assert [line for line in page.splitlines() if line.startswith("- **Policy")] == [
        "- **Policy all, rule hard_delete_after:** older than 2 weeks and named a* but not b: 2",
        "- **Policy all, rule failed:** older than 14 days and with status error: 1",
        "- **Policy all, rule stale:** older than 1 year and unused for 90 days and of model phoenix-2: 1",
        "- **Policy all, rule by hand:** chosen by hand: 1",
        "- **Policy all, (hard_delete_after):** soft-deleted by this package at least 30d ago: 1",
        "- **Policy all, (quota):** above 2,000 replicas, the least recently used down to 1,500, older than "
        "60 days: 1",
    ]
    assert "| replica | name | age | rule | reason |" in page
    assert "| r8 | anna | 200 d | (hard_delete_after) | " in page


def test_columns_that_the_reason_repeats_are_left_out():
    plan = make(replica("r1"))
    (row,) = plan["delete"]
    chosen = row | {"reason": "chosen by hand", "last_used_at": "2026-05-22T12:00:00Z"}
    page = text_of(plan | {"delete": [chosen]})
    assert "| replica | name | age | last used | reason |" in page
    assert "| r1 | anna | 200 d | 10 d ago | chosen by hand |" in page


def test_all_of_fifty_rows_are_shown():
    assert len(re.findall(r"^\| r[0-9]{4} \|", page_of(make(*many(50))), re.MULTILINE)) == 50


def test_more_rows_are_counted_and_the_oldest_and_newest_are_shown():
    rows = [replica(f"r{n:04}", f"{'summer' if n % 3 else 'spring'}-{n}", 100 + n) for n in range(297)]
    rows += [replica("r1000", None, 99), replica("r1001", "Zoë", 98), replica("r1002", "山" * 30, 97)]
    page = text_of(make(*rows))
    assert (
        "- **Policy stale, rule old:** older than 90 days. 300 replicas, 97 to 396 days old: summer-* 198, "
        "spring-* 99, other names 3\n"
    ) in page
    block = page.split("```text\n")[1].split("\n```")[0].splitlines()
    assert block[0].split("  ")[0] == "the 20 oldest of 300"
    assert block[0].endswith("   the 20 newest")
    assert len(block) == 21
    assert block[1] == f"r0296  {'summer-296':22}  396d   r1002  {'山' * 10}…    97d"
    assert block[2] == f"r0295  {'summer-295':22}  395d   r1001  {'Zoë':22}   98d"
    assert block[3].endswith(f"   r1000  {'(no name)':22}   99d")
    assert block[20].startswith(f"r0277  {'summer-277':22}  377d   r0016  ")
    assert len(page.splitlines()) < 33
    assert max(map(len, block)) <= 90


def test_short_page_of_a_plan_that_is_long():
    page = page_of(make(*many(4_321)))
    assert len(page) < 6_000
    assert "**4,321 of 4,321 replicas**" in page


def test_count_of_listed_replicas_is_omitted_for_a_plan_of_one():
    assert page_of(make(replica("r1"))).startswith("**1 replica** of ")
    two = make(replica("r1"), replica("r2"))
    assert page_of(two).startswith("**2 of 2 replicas** of ")
    unlisted = {**two["delete"][1], "source": "soft_deleted", "rule": None, "created_at": None}
    assert page_of({**two, "listed": 1, "delete": [two["delete"][0], unlisted]}).startswith(
        "**2 of 2 replicas** of "
    )
