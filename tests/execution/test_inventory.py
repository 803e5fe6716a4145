"""Reading the account, and one replica that a person chose."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from tavus_provider.client.listing import Page
from tavus_provider.exceptions import PlanRejectedError, ReplicaNotFoundError
from tavus_provider.execution.inventory import evaluate_one, read_inventory
from tavus_provider.models import Persona, Replica, Video, parse_row
from tavus_provider.retention.context import History
from tavus_provider.retention.policy import Policy

POLICY = {"name": "stale", "expire": [{"rule": "old", "older_than": "90d"}]}


def now():
    return datetime.now(UTC)


class Client:
    """A client that notes which lists were read, and with which arguments."""

    def __init__(self, *, skew=None) -> None:
        self.clock_skew = skew
        self.clock_evidence = "a response had Age: 0 and Date: x when this worker's clock showed y"
        self.calls: list[tuple[str, dict[str, bool]]] = []
        self.rows: dict[str, list[object]] | None = None

    def __getattr__(self, name):
        def read(**arguments):
            if name == "get_conversations_page":  # as of an account without conversations
                return Page([], 0)
            self.calls.append((name, arguments))
            return (
                [SimpleNamespace(read_by=name, status="active")]
                if self.rows is None
                else self.rows.get(name, [])
            )

        return read


# -- the lists


def test_history_and_holds_are_read_last_for_the_time_of_the_inventory():
    client, order = Client(), []
    moment = datetime(2026, 6, 1, tzinfo=UTC)
    history = History(soft_deleted={"r1": moment - timedelta(days=1)})

    def clock():
        order.append(f"now after {len(client.calls)} lists")
        return moment

    inventory = read_inventory(
        client,
        Policy.parse(POLICY),
        now=clock,
        history=lambda at: order.append(f"history at {at:%Y-%m-%d}") or history,
        held=lambda at: order.append(f"held at {at:%Y-%m-%d}") or frozenset({"r2"}),
    )
    assert (inventory.read_at, inventory.history, inventory.held) == (moment, history, {"r2"})
    assert order == ["now after 4 lists", "history at 2026-06-01", "held at 2026-06-01"]


def test_only_the_lists_that_the_policy_needs_are_read():
    client = Client()
    policy = Policy.parse(POLICY | {"keep": {"in_use": ["persona"]}})
    inventory = read_inventory(client, policy, now=now, while_deleting=True)
    assert client.calls == [("list_replicas", {"while_deleting": True}), ("list_personas", {})]
    assert not inventory.conversations
    assert not inventory.videos


def test_unreadable_rows_are_apart_from_the_readable_ones():
    client = Client()
    rows = [
        parse_row(Replica, None),
        parse_row(Persona, {"pal_id": 7}),
        parse_row(Video, {"replica_id": "r1"}),
    ]
    client.rows = {"list_replicas": rows[:1], "list_personas": rows[1:2], "list_videos": rows[2:]}
    inventory = read_inventory(client, Policy.parse(POLICY), now=now)
    assert inventory.unreadable == rows
    assert inventory.unreadable_replicas == (rows[0],)
    assert not inventory.replicas
    assert not inventory.personas
    assert not inventory.videos


def test_of_activities_only_the_latest_are_read():
    client = Client()
    read_inventory(client, Policy.parse(POLICY), now=now)
    assert client.calls[2:] == [
        ("list_conversations", {"status": "active", "latest_only": True}),
        ("list_videos", {"latest_only": True}),
    ]


def test_clock_is_checked_before_a_delete_by_hand(hook, monkeypatch):
    """Case E18."""
    monkeypatch.setattr(type(hook), "clock_skew", 800 * 86_400.0)
    with pytest.raises(
        PlanRejectedError, match="the clocks of Tavus and of this worker differ by 69120000 s"
    ):
        evaluate_one(hook, "r1a0c5e8f3b2", now=now)


@pytest.mark.parametrize("skew", [300.5, -301.0, 86_400.0])
def test_clock_difference_of_more_than_five_minutes_is_rejected(skew):
    with pytest.raises(PlanRejectedError) as caught:
        read_inventory(Client(skew=skew), Policy.parse(POLICY), now=now)
    assert str(caught.value) == (
        f"the clocks of Tavus and of this worker differ by {abs(skew):.0f} s (at most 300 s allowed), so "
        "ages cannot be computed: a response had Age: 0 and Date: x when this worker's clock showed y. "
        "Correct "
        "the clock that is wrong, or have no cache between Tavus and this worker. Nothing was deleted"
    )


@pytest.mark.parametrize("skew", [None, 0.0, 300.0, -300.0])
def test_clock_difference_of_up_to_five_minutes_is_accepted(skew):
    assert read_inventory(Client(skew=skew), Policy.parse(POLICY), now=now)


# -- one replica


CHOSEN = [
    pytest.param("r1a0c5e8f3b2", "chosen by hand", id="old"),
    pytest.param("rd6a1c3f7e82", "chosen by hand", id="young"),
    pytest.param(
        "r9d6a2b4f8e1",
        "chosen by hand although status is 'archived', not one of started, completed, error",
        id="unknown status",
    ),
    pytest.param("r6a3d9e1c5b8", "chosen by hand although created_at is not given", id="no created_at"),
    pytest.param(
        "r4d1e7a9c3f6",
        "chosen by hand although failed 20 hours ago, "
        "a delete within 72h can lose the refund of the training",
        id="failed recently",
    ),
]


@pytest.mark.parametrize(("replica_id", "reason"), CHOSEN)
def test_chosen_replica_may_be_deleted_at_any_age_and_caveats_are_named(hook, replica_id, reason):
    verdict = evaluate_one(hook, replica_id, now=now)
    assert (verdict.status, verdict.rule, verdict.reason) == ("expired", "by hand", reason)


@pytest.mark.parametrize(
    ("replica_id", "reason"),
    [
        pytest.param("rb1f8c4d6e0a", "replica_type is 'system', not 'user'", id="stock replica"),
        pytest.param("rae7b3c5a9f2", "replica_type is 'user'', not 'user'", id="unknown type"),
        pytest.param("rf8c6e5b1a20", "is the default of persona p1c2d3e4f5a6", id="persona"),
        pytest.param("r09d7f2c4b6a", "is in active conversation c0eaa60a267274af", id="conversation"),
        pytest.param("r1ae8b0d3c5f", "is in video 1e30440cf9, which is generating", id="video"),
    ],
)
def test_chosen_replica_that_is_a_stock_replica_or_in_use_is_rejected(hook, replica_id, reason):
    with pytest.raises(PlanRejectedError) as caught:
        evaluate_one(hook, replica_id, now=now)
    assert str(caught.value) == (
        f"replica {replica_id} cannot be deleted by hand: {reason}; nothing was deleted"
    )


def test_chosen_replica_that_tavus_does_not_know_is_accepted_only_on_request(hook):
    with pytest.raises(ReplicaNotFoundError, match="GET /v2/replicas/r404 returned 400: Invalid replica_id"):
        evaluate_one(hook, "r404", now=now)
    verdict = evaluate_one(hook, "r404", now=now, ignore_if_missing=True)
    assert (verdict.status, verdict.listed) == ("expired", False)
    assert verdict.reason.endswith("returned 400: Invalid replica_id; it may be soft-deleted already")
