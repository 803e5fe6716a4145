"""A saved account: what is saved is what is read, and what is wrong is named."""

from __future__ import annotations

import copy
import dataclasses
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from retention.test_laws import RULES, law, listings, policies, unreadables, uses

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.models import Conversation, Persona, Replica, UnreadableRow, Video
from tavus_provider.planning.saved_account import load_account, save_account
from tavus_provider.retention.conditions import CONDITIONS
from tavus_provider.retention.context import History, Inventory
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.policy import Policy

NOW = datetime(2026, 9, 1, 12, 30, 15, 123456, tzinfo=UTC)
POLICY = Policy.parse({"name": "stale", "expire": [{"older_than": "90d"}]})
FULL = Inventory(
    replicas=[
        Replica(
            "r1",
            "anna?",
            "completed",
            "user",
            "phoenix-4",
            NOW - timedelta(days=9),
            NOW,
            {"status": "odd"},
            altered_name="anna\ufffd",
            is_name_cut=True,
        ),
        Replica("r2"),
    ],
    personas=[Persona("p1", "r1"), Persona("p2", None)],
    conversations=[Conversation("c1", "r1", None, "ended", NOW, NOW)],
    videos=[Video("v1", None, "p1", None, None)],
    held=frozenset({"r9", "r8"}),
    history=History(
        scheduled={"r1": NOW}, soft_deleted={"r7": NOW}, due={"r1": NOW}, erasures={"r7": "DSR-1"}
    ),
    read_at=NOW,
    unreadable=[
        UnreadableRow("video", "odd", "f" * 64, ("v2", "v3"), ("r1",), ("p1",), "ready", NOW, 4),
        UnreadableRow("replica", "odd", "e" * 64),
    ],
)


def saved(inventory: Inventory = FULL, **options: bool) -> dict[str, object]:
    account = save_account(
        inventory, policy=POLICY, tavus_conn_id="eu", origin="https://tavusapi.com", **options
    )
    return json.loads(json.dumps(account))


def test_every_fact_is_read_back():
    assert load_account(saved(), POLICY) == FULL


@law
@given(listings, uses, unreadables)
def test_any_inventory_is_read_back(listing, use, unreadable):
    inventory = dataclasses.replace(use, replicas=listing, unreadable=unreadable, read_at=NOW)
    assert load_account(saved(inventory), POLICY) == inventory


@pytest.mark.parametrize("kind", [Replica, Persona, Conversation, Video, UnreadableRow, History, Inventory])
def test_full_account_has_every_field(kind):
    """A field that is added must be saved too, or decisions about saved accounts differ."""
    fields = {
        Replica: FULL.replicas[0],
        Persona: FULL.personas[0],
        Conversation: FULL.conversations[0],
        Video: Video("v1", "r1", "p1", "ready", NOW, NOW),
        UnreadableRow: FULL.unreadable[0],
        History: FULL.history,
        Inventory: dataclasses.replace(FULL, known_use=NOW),  # only saves requests
    }
    unset = [
        field.name
        for field in dataclasses.fields(kind)
        if not getattr(fields[kind], field.name) and (kind, field.name) != (Conversation, "persona_id")
    ]
    assert unset == []


def test_schedule_is_that_of_its_policy_only():
    other = Policy.parse({"name": "other", "expire": [{"older_than": "90d"}]})
    assert load_account(saved(), other).history == History(soft_deleted={"r7": NOW}, erasures={"r7": "DSR-1"})
    assert load_account(saved(), POLICY, other).history.scheduled == {}
    assert load_account(saved(), POLICY, other).history.due == {}


@pytest.mark.parametrize(
    ("parts", "setting"),
    [
        ({"scope": {"include": ["a_*"]}}, "scope.include"),
        ({"scope": {"exclude": ["vip_*"]}}, "scope.exclude"),
        ({"narrow": {"include": ["a_*"]}}, "narrow.include"),
        ({"keep": {"keep_last": 2, "group_by": "^(?P<group>.)"}}, "keep.group_by"),
        *(
            ({"expire": [{"older_than": "90d"}, {"older_than": "30d", "names": names}]}, r"expire\.1\.names")
            for names in ({"include": ["a_*"]}, {"exclude": ["vip_*"]})
        ),
    ],
)
def test_policy_that_asks_for_names_needs_names(parts, setting):
    asks = Policy.parse({"name": "asks", "expire": [{"older_than": "90d"}], **parts})
    without = saved(names=False)
    assert "anna" not in json.dumps(without)
    with pytest.raises(TavusValidationError, match=rf"without names, but {setting} of policy 'asks' asks"):
        load_account(without, POLICY, asks)
    assert load_account(without, POLICY).replicas[0].replica_name is None
    load_account(without, Policy.parse({"expire": [{"older_than": "90d"}], "scope": {"include": ["*"]}}))


@law
@given(policies, listings, uses)
def test_policy_that_asks_for_no_names_decides_the_same_without_them(policy, listing, use):
    assume((parsed := Policy.parse({"name": "stale", **policy})).find_name_setting() is None)
    inventory = dataclasses.replace(use, replicas=listing, read_at=NOW)
    decisions = [
        evaluate(parsed, load_account(saved(inventory, names=names), parsed), now=NOW)
        for names in (True, False)
    ]
    facts = [
        [(verdict.replica.replica_id, verdict.status, verdict.reason) for verdict in decision.verdicts]
        for decision in decisions
    ]
    assert facts[0] == facts[1]


def test_laws_draw_every_condition_of_a_rule():
    assert {kind.key for kind in CONDITIONS} <= {key for rule in RULES for key in rule}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("version",), 2, "account: version is 2, this release of the provider reads 1"),
        (("version",), None, "account: version is None, this release"),
        (("secret",), 1, "account: unknown key 'secret'; known: version, read_at, "),
        (("replicas",), {}, "account.replicas must be a list, not an object"),
        (("replicas", 1, "status"), 3, "account.replicas[1].status must be a string or null, not an integer"),
        (
            ("replicas", 1, "replica_id"),
            "../x",
            "account: replicas[1].replica_id: '../x' is not a replica id",
        ),
        (
            ("replicas", 0, "created_at"),
            "2026-01-01",
            "account: replicas[0].created_at: '2026-01-01' is not an",
        ),
        (
            ("videos", 0, "used_at"),
            "soon",
            "account: videos[0].used_at: 'soon' is not an ISO 8601 time with a",
        ),
        (("unreadable", 0, "kind"), "x", "account.unreadable[0].kind must be 'replica' or 'persona' or"),
        (("history", "scheduled"), {"r1": "x"}, "account: history.scheduled.r1: 'x' is not an ISO 8601 time"),
        (("read_at",), "", "account: read_at: '' is not an ISO 8601 time with a time zone"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(path, value, message):
    account = copy.deepcopy(saved())
    inner = account
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(TavusValidationError) as caught:
        load_account(account, POLICY)
    assert str(caught.value).startswith(message)
    with pytest.raises(TavusValidationError, match="must be a JSON object"):
        load_account([account], POLICY)
