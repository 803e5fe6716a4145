"""Only active conversations are read where no rule asks about the past, if counts show that these are all."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest

from tavus_provider.client.api import TavusClient
from tavus_provider.client.config import ClientConfig
from tavus_provider.client.pagination import Page
from tavus_provider.exceptions import TavusAuthError, TavusInvalidResponseError
from tavus_provider.execution import conversations
from tavus_provider.execution.conversations import read_conversations
from tavus_provider.execution.inventory import read_inventory
from tavus_provider.models import Conversation
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


def ids(rows):
    return {row.activity_id for row in rows}


def test_only_active_conversations_are_read_and_the_counts_show_that_these_are_all(account):
    sandbox, client = account([*ended(250), *ACTIVE])
    assert ids(read_conversations(client, with_ended=False)) == {"a0", "a1", "a2"}
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
        read_conversations(client, with_ended=False)
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
    found = {row.replica_id for row in read_conversations(client, with_ended=with_ended)}
    assert found == {row["replica_id"] for row in rows}


@pytest.mark.parametrize("status", ["paused", "Active", None])
def test_conversation_of_another_status_is_found(account, status):
    odd = {"conversation_id": "odd", "status": status, "replica_id": "r9z", "age": "1h"}
    sandbox, client = account([odd, *ended(150), *ACTIVE])
    assert "odd" in ids(read_conversations(client, with_ended=False))
    sandbox.put("conversations", {"conversation_id": "odd", "status": "ended"})
    assert "odd" not in ids(read_conversations(client, with_ended=False))


def test_conversation_of_another_status_is_found_if_total_count_is_that_of_the_page(account):
    """Without active ones, the counts of all and of ended ones are then both 1."""
    odd = {"conversation_id": "odd", "status": "paused", "replica_id": "r9z", "age": "1h"}
    _, client = account([*ended(150), odd], total_count="page")
    assert "odd" in ids(read_conversations(client, with_ended=False))


def test_history_is_read_in_full_and_active_conversations_once_more(account):
    sandbox, client = account([*ended(3), *ACTIVE])
    assert len(read_conversations(client, with_ended=True)) == 9
    assert queries(sandbox) == [
        "limit=100&page=1",
        "status=active&limit=1&page=1",
        "status=ended&limit=1&page=1",
        "status=active&limit=100&page=1",
    ]


def test_conversations_are_not_read_twice_from_a_server_that_ignores_the_filter(account):
    sandbox, client = account([*ended(150), *ACTIVE], status_filter="ignored")
    read_conversations(client, with_ended=True)
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

    def list_conversations(self, *, status=None, latest_only=False):
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
            found = ids(read_conversations(account, with_ended=False))
            assert "h1" in found, (first, one, second, other)


def test_counts_are_asked_again_until_they_settle():
    account = Account({"e1": "ended", "a1": "active"}, [(), (), (("n1", "active"),)])
    assert ids(read_conversations(account, with_ended=False)) == {"a1", "n1"}
    assert account.requests[-1] == "list active"
    assert account.waits == [1.0]


def test_everything_is_read_if_the_counts_never_settle():
    steps = [((f"n{n}", "active"),) for n in range(100)]
    account = Account({"e1": "ended"}, steps)
    found = read_conversations(account, with_ended=False)
    assert account.requests[-1] == "list None"
    assert "e1" in ids(found)
    assert len(account.waits) == conversations.MAX_COUNTS - 1


def test_counts_that_stay_wrong_are_asked_twice_only():
    account = Account(HIDDEN)
    assert ids(read_conversations(account, with_ended=False)) == set(HIDDEN)
    assert len(account.waits) == 1


def test_incomplete_list_of_active_conversations_leads_to_a_full_read():
    account = Account({"e1": "ended", "a1": "active"})
    complete = account.list_conversations

    def list_conversations(*, status=None, latest_only=False):
        if status == "active":
            raise TavusInvalidResponseError("not complete")
        return complete(status=status, latest_only=latest_only)

    account.list_conversations = list_conversations
    assert ids(read_conversations(account, with_ended=False)) == {"e1", "a1"}


def test_list_of_active_conversations_with_others_leads_to_a_full_read():
    """A server may count as the filter asks, and list as it does not."""
    account = Account({"e1": "ended", "a1": "active"})
    complete = account.list_conversations
    account.list_conversations = lambda *, status=None, latest_only=False: (
        complete(status="ended") if status else complete()
    )
    assert ids(read_conversations(account, with_ended=False)) == {"e1", "a1"}


@pytest.mark.parametrize("with_ended", [False, True])
def test_rejected_key_is_not_taken_for_a_rejected_filter(with_ended):
    account = Account({"e1": "ended", "a1": "active"})

    def get_conversations_page(**arguments):
        raise TavusAuthError("rejected", status=401)

    account.get_conversations_page = get_conversations_page
    with pytest.raises(TavusAuthError):
        read_conversations(account, with_ended=with_ended)


def test_incomplete_full_list_is_an_error():
    account = Account(HIDDEN)

    def list_conversations(*, status=None, latest_only=False):
        raise TavusInvalidResponseError("not complete")

    account.list_conversations = list_conversations
    for with_ended in (False, True):
        with pytest.raises(TavusInvalidResponseError):
            read_conversations(account, with_ended=with_ended)
