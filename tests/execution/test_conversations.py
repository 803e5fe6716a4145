"""Only active conversations are read where no rule asks about the past, if counts show that these are all."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tavus_provider.client.api import TavusClient
from tavus_provider.client.config import ClientConfig
from tavus_provider.client.listing import Page
from tavus_provider.exceptions import TavusAuthError, TavusInvalidResponseError
from tavus_provider.execution import conversations
from tavus_provider.execution.conversations import read_active_conversations, read_past_conversations
from tavus_provider.execution.inventory import read_inventory
from tavus_provider.models import Conversation, parse_row
from tavus_provider.retention.known_use import KnownUse
from tavus_provider.retention.policy import Policy
from tavus_provider.sandbox import Sandbox

ACTIVE = [
    {"conversation_id": f"a{n}", "status": "active", "replica_id": f"r{n}x", "age": "1h"} for n in range(3)
]


def ended(count, *, age="400d"):
    return [
        {"conversation_id": f"e{n:05}", "status": "ended", "replica_id": f"r{n % 7}y", "age": age}
        for n in range(count)
    ]


@pytest.fixture
def account():
    """Return a function that starts a sandbox with conversations and returns it with a client."""
    opened = []

    def start(rows, **switches):
        sandbox = Sandbox({"conversations": rows}, key="conversations-key-7a").__enter__()
        sandbox.switch(**switches)
        client = TavusClient(ClientConfig(sandbox.url, sandbox.key))
        client.wait = lambda seconds: False
        opened.extend((client, sandbox))
        return sandbox, client

    yield start
    for one in opened:
        one.__exit__(None, None, None)


def queries(sandbox):
    return [one["query"] for one in sandbox.state()["requests"]]


def read(client, *, with_ended):
    if with_ended:
        return read_past_conversations(client, known=None, now=None)[0]
    return read_active_conversations(client)


def ids(rows):
    return {row.activity_id for row in rows}


def test_only_active_conversations_are_read_and_the_counts_show_that_these_are_all(account):
    sandbox, client = account([*ended(250), *ACTIVE])
    assert ids(read(client, with_ended=False)) == {"a0", "a1", "a2"}
    assert queries(sandbox) == [
        "status=ended&limit=1&page=1",
        "status=active&limit=1&page=1",
        "limit=1&page=1",
        "status=ended&limit=1&page=1",
        "status=active&limit=1&page=1",
        "limit=1&page=254",
        "status=active&limit=100&page=1",
    ]


@pytest.mark.parametrize("active", [0, 3])
def test_number_of_requests_does_not_grow_with_ended_conversations(account, active):
    counts = set()
    for count in (0, 1, 1_000):
        sandbox, client = account([*ended(count), *ACTIVE[:active]])
        read(client, with_ended=False)
        counts.add(len(queries(sandbox)))
    assert len(counts) == 1


@pytest.mark.parametrize(
    "switches",
    [
        pytest.param({"status_filter": "ignored"}, id="filter ignored"),
        pytest.param({"status_filter": "ignored", "order": "newest"}, id="filter ignored, active ones first"),
        pytest.param({"status_filter": "rejected"}, id="filter rejected"),
        pytest.param({"total_count": "page"}, id="total_count of the page"),
    ],
)
@pytest.mark.parametrize("with_ended", [False, True])
def test_all_conversations_are_read_from_a_server_that_cannot_filter(account, switches, with_ended):
    rows = [*ended(150), *ACTIVE]
    _, client = account(rows, **switches)
    found = {row.replica_id for row in read(client, with_ended=with_ended)}
    assert found == {row["replica_id"] for row in rows}


@pytest.mark.parametrize("status", ["paused", "Active", None])
def test_conversation_of_another_status_is_found(account, status):
    odd = {"conversation_id": "odd", "status": status, "replica_id": "r9z", "age": "1h"}
    sandbox, client = account([odd, *ended(150), *ACTIVE])
    assert "odd" in ids(read(client, with_ended=False))
    sandbox.put("conversations", {"conversation_id": "odd", "status": "ended"})
    assert "odd" not in ids(read(client, with_ended=False))


def test_conversation_of_another_status_is_found_if_total_count_is_that_of_the_page(account):
    """Without active ones, the counts of all and of ended ones are then both 1."""
    odd = {"conversation_id": "odd", "status": "paused", "replica_id": "r9z", "age": "1h"}
    _, client = account([*ended(150), odd], total_count="page")
    assert "odd" in ids(read(client, with_ended=False))


def test_history_is_read_in_full_and_active_conversations_once_more(account):
    sandbox, client = account([*ended(3), *ACTIVE])
    assert len(read(client, with_ended=True)) == 9
    assert queries(sandbox) == [
        "limit=1&page=1",
        "limit=100&page=1",
        "status=active&limit=1&page=1",
        "status=ended&limit=1&page=1",
        "status=active&limit=100&page=1",
    ]


def test_conversations_are_not_read_twice_from_a_server_that_ignores_the_filter(account):
    sandbox, client = account([*ended(150), *ACTIVE], status_filter="ignored")
    read(client, with_ended=True)
    assert not [query for query in queries(sandbox) if "status=active&limit=100" in query]


@pytest.mark.parametrize(
    ("rule", "keep", "expected"),
    [
        pytest.param({"older_than": "90d"}, {}, "status=active&limit=100&page=1", id="present"),
        pytest.param({"unused_for": "90d"}, {}, "limit=100&page=1", id="past"),
        pytest.param({"unused_for": "90d"}, {"in_use": []}, "limit=100&page=1", id="past only"),
        pytest.param({"older_than": "90d"}, {"in_use": ["video"]}, None, id="not at all"),
    ],
)
def test_rules_decide_whether_ended_conversations_are_read(account, rule, keep, expected):
    sandbox, client = account([*ended(3), *ACTIVE])
    policy = Policy.parse({"expire": [rule], "keep": keep})
    read_inventory(client, policy, now=lambda: datetime.now(UTC))
    lists = [q["query"] for q in sandbox.state()["requests"] if q["path"] == "/v2/conversations"]
    whole = [query for query in lists if "limit=100" in query]
    assert whole[:1] == ([] if expected is None else [expected])


# -- conversations that begin, end and are deleted meanwhile


class Account:
    """An account that changes before each request: one step of ``steps`` per request, then none."""

    def __init__(self, statuses, steps=()):
        self.statuses = dict(statuses)
        self.steps = iter(steps)
        self.requests = []
        self.waits = []

    def _rows(self, status):
        for row_id, new in next(self.steps, ()):
            self.statuses[row_id] = new
            if new is None:
                del self.statuses[row_id]
        return [
            Conversation(row_id, "r1", None, one, None)
            for row_id, one in self.statuses.items()
            if status in (None, one)
        ]

    def get_conversations_page(self, *, status=None, number=1, limit=1):
        self.requests.append(status)
        rows = self._rows(status)
        return Page(rows[(number - 1) * limit : number * limit], len(rows))

    def list_conversations(self, *, status=None, latest_only=False, observe=None):
        self.requests.append(f"list {status}")
        return self._rows(status)

    def wait(self, seconds):
        self.waits.append(seconds)
        return False


HIDDEN = {"e1": "ended", "e2": "ended", "a1": "active", "h1": "paused"}
CHANGES = [
    (),
    (("n1", "active"),),
    (("a1", "ended"),),
    (("e1", None),),
    (("a1", None),),
    (("h1", "active"),),
]


def test_hidden_conversation_is_found_whatever_changes_between_the_requests():
    """Up to two conversations begin, end, become active or are deleted before any of the first requests."""
    for first, second in itertools.product(range(7), repeat=2):
        for one, other in itertools.product(CHANGES, repeat=2):
            steps = [()] * 7
            steps[first] = one
            steps[second] = (*steps[second], *other)
            if len({row_id for row_id, new in (*one, *other) if new is None}) < sum(
                new is None for _, new in (*one, *other)
            ):
                continue  # deleted twice
            account = Account(HIDDEN, steps)
            found = ids(read(account, with_ended=False))
            assert "h1" in found, (first, one, second, other)


def test_counts_are_asked_again_until_they_settle():
    account = Account({"e1": "ended", "a1": "active"}, [(), (), (("n1", "active"),)])
    assert ids(read(account, with_ended=False)) == {"a1", "n1"}
    assert account.requests[-1] == "list active"
    assert account.waits == [1.0]


def test_everything_is_read_if_the_counts_never_settle():
    steps = [((f"n{n}", "active"),) for n in range(100)]
    account = Account({"e1": "ended"}, steps)
    found = read(account, with_ended=False)
    assert account.requests[-1] == "list None"
    assert "e1" in ids(found)
    assert len(account.waits) == conversations.MAX_COUNTS - 1


def test_counts_that_stay_wrong_are_asked_twice_only():
    account = Account(HIDDEN)
    assert ids(read(account, with_ended=False)) == set(HIDDEN)
    assert len(account.waits) == 1


def test_incomplete_list_of_active_conversations_leads_to_a_full_read():
    account = Account({"e1": "ended", "a1": "active"})
    complete = account.list_conversations

    def list_conversations(*, status=None, latest_only=False, observe=None):
        if status == "active":
            raise TavusInvalidResponseError("not complete")
        return complete(status=status, latest_only=latest_only)

    account.list_conversations = list_conversations
    assert ids(read(account, with_ended=False)) == {"e1", "a1"}


def test_list_of_active_conversations_with_others_leads_to_a_full_read():
    """A server may count as the filter asks, and list as it does not."""
    account = Account({"e1": "ended", "a1": "active"})
    complete = account.list_conversations
    account.list_conversations = lambda *, status=None, latest_only=False, observe=None: (
        complete(status="ended") if status else complete()
    )
    assert ids(read(account, with_ended=False)) == {"e1", "a1"}


@pytest.mark.parametrize("with_ended", [False, True])
def test_rejected_key_is_not_taken_for_a_rejected_filter(with_ended):
    account = Account({"e1": "ended", "a1": "active"})

    def get_conversations_page(**arguments):
        raise TavusAuthError("rejected", status=401)

    account.get_conversations_page = get_conversations_page
    with pytest.raises(TavusAuthError):
        read(account, with_ended=with_ended)


def test_incomplete_full_list_is_an_error():
    account = Account(HIDDEN)

    def list_conversations(*, status=None, latest_only=False, observe=None):
        raise TavusInvalidResponseError("not complete")

    account.list_conversations = list_conversations
    for with_ended in (False, True):
        with pytest.raises(TavusInvalidResponseError):
            read(account, with_ended=with_ended)


# -- what a plan read, handed to apply


NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def row(row_id, status="ended", *, days=100.0, replica="r1", updated=None):
    created = NOW - timedelta(days=days)
    return Conversation(row_id, replica, None, status, updated or created, created)


class History(Account):
    """An account whose conversations are listed from the newest to the oldest."""

    def __init__(self, rows):
        super().__init__({})
        self.rows = {one.activity_id: one for one in rows}
        self.order = lambda one: one.created_at

    def _rows(self, status):
        rows = sorted(self.rows.values(), key=self.order, reverse=True)
        return [one for one in rows if status in (None, one.status)]

    def list_conversations(self, *, status=None, latest_only=False, observe=lambda rows: None):
        rows = super().list_conversations(status=status)
        observe(rows)
        return rows

    def put(self, *rows):
        self.rows |= {one.activity_id: one for one in rows}

    def plan(self):
        rows, known = read_past_conversations(self, known=None, now=None)
        self.requests.clear()
        return rows, known if known is None else KnownUse.from_json(json.loads(json.dumps(known.to_json())))

    def apply(self, known):
        rows, again = read_past_conversations(self, known=known, now=lambda: NOW)
        assert known is None or again is None or "list None" in self.requests
        return {(one.activity_id, one.status, one.used_at) for one in rows}

    @property
    def reads_all(self):
        return "list None" in self.requests


def history(count=150):
    return History(
        [*(row(f"e{n}", days=10 + n, replica=f"r{n}") for n in range(count)), row("a1", "active", days=0.01)]
    )


def test_apply_reads_only_what_can_have_changed_since_the_plan():
    account = history()
    _, known = account.plan()
    before = account.apply(None)
    account.requests.clear()
    account.put(row("n1", days=0.001, replica="r7"), row("n2", "active", days=0.0005, replica="r8"))
    found = account.apply(known)
    assert not account.reads_all
    assert len(account.requests) == 8
    assert {row_id for row_id, _, _ in found} == {row_id for row_id, _, _ in before} | {"n1", "n2"}


def test_conversation_that_ended_since_the_plan_counts_as_used_now():
    account = history()
    _, known = account.plan()
    account.put(row("a1", "ended", days=0.01))
    found = account.apply(known)
    assert not account.reads_all
    assert ("a1", "ended", NOW) in found
    assert ("a1", "active", NOW - timedelta(days=0.01)) not in found


def test_active_conversation_that_was_deleted_since_the_plan_counts_as_used_now():
    account = history()
    _, known = account.plan()
    del account.rows["a1"]
    assert ("a1", "ended", NOW) in account.apply(known)


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(lambda one: -one.created_at.timestamp(), id="oldest first"),
        pytest.param(lambda one: one.activity_id, id="by id"),
    ],
)
def test_nothing_is_handed_over_from_a_list_in_another_order(order):
    account = history()
    account.order = order
    assert account.plan()[1] is None


def test_everything_is_read_if_the_order_of_the_list_changed():
    account = history()
    _, known = account.plan()
    account.order = lambda one: one.activity_id
    account.put(row("N1", days=0.001, replica="r7"))
    assert "N1" in {row_id for row_id, _, _ in account.apply(known)}
    assert account.reads_all


def test_everything_is_read_if_more_began_than_one_page_shows():
    account = history()
    _, known = account.plan()
    account.put(*(row(f"n{n}", days=0.0001 * n) for n in range(100)))
    found = account.apply(known)
    assert account.reads_all
    assert {f"n{n}" for n in range(100)} <= {row_id for row_id, _, _ in found}


def test_conversation_that_appeared_late_in_the_list_is_found():
    """Its date is older than the newest one of the plan, and it is the first one of the next page."""
    account = history()
    _, known = account.plan()
    account.put(*(row(f"n{n}", days=0.0001 * n) for n in range(98)))
    for number in (1, 2):
        late = known.since - timedelta(minutes=number)
        account.put(Conversation(f"late{number}", "r9", None, "ended", late, late))
    assert "late2" in {row_id for row_id, _, _ in account.apply(known)}
    assert account.reads_all


@pytest.mark.parametrize("status", ["paused", None])
def test_everything_is_read_if_a_conversation_has_another_status(status):
    account = history()
    _, known = account.plan()
    account.put(row("odd", status, days=50))
    assert "odd" in {row_id for row_id, _, _ in account.apply(known)}
    assert account.reads_all


def test_conversation_of_another_status_is_not_handed_over_as_ended():
    account = history()
    account.put(row("odd", "paused", days=50))
    _, known = account.plan()
    assert "odd" in {row_id for row_id, _, _ in account.apply(known)}
    assert account.reads_all


@pytest.mark.parametrize("undated", [True, False])
def test_nothing_is_handed_over_if_a_row_has_no_date_or_is_unreadable(undated):
    account = history()
    odd = (
        Conversation("odd", "r1", None, "ended", NOW, None) if undated else parse_row(Conversation, {"x": 1})
    )
    rows = account._rows

    account._rows = lambda status: [*rows(status), odd] if status is None else rows(status)
    assert account.plan()[1] is None


@given(st.lists(st.sampled_from(["begin", "end", "delete", "begin and end"]), max_size=8), st.randoms())
def test_apply_finds_every_use_that_a_full_read_finds(events, random):
    account = history(30)
    _, known = account.plan()
    for number, event in enumerate(events):
        active = sorted(one.activity_id for one in account.rows.values() if one.status == "active")
        if event.startswith("begin"):
            status = "ended" if event == "begin and end" else "active"
            account.put(row(f"n{number}", status, days=-0.001 * number, replica=f"r{number}"))
        elif event == "end" and active:
            chosen = account.rows[random.choice(active)]
            account.put(replace(chosen, status="ended", used_at=NOW))
        elif event == "delete":
            del account.rows[random.choice(sorted(account.rows))]
    rows, _ = read_past_conversations(account, known=known, now=lambda: NOW + timedelta(days=1))
    last_use = {}
    for one in rows:
        last_use[one.replica_id] = max(one.used_at, last_use.get(one.replica_id, one.used_at))
    for one in account.rows.values():
        assert last_use[one.replica_id] >= one.used_at
        if one.status == "active":
            assert (one.replica_id, "active") in {(other.replica_id, other.status) for other in rows}
